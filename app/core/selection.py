"""Whom to remove: pending workers first, the youngest first, then the idle ones that are missed least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from app.core.workers import LIVE, State, Worker


def removal_order(workers: Sequence[Worker], *, template_hash: str) -> list[Worker]:
    """Workers that scaling may remove, the first to go first. One with a session is never among them.

    Those of an older template go before all others, pending or idle. Of the idle ones, those go first whose removal
    loses the fewest warm slots, then those with the fewest companions on their node (so that the cluster's own
    autoscaler can take the node), then the longest idle.
    """
    companions = Counter(worker.node for worker in workers if worker.state in LIVE)
    pending = [worker for worker in workers if worker.state in (State.PENDING, State.HELD)]
    idle = [worker for worker in workers if worker.state is State.IDLE and not worker.sessions]
    pending.sort(key=lambda worker: (worker.state is not State.HELD, -worker.created, worker.name))
    idle.sort(key=lambda worker: (worker.slots, companions[worker.node], worker.since, worker.name))
    return sorted(pending + idle, key=lambda worker: worker.template_hash == template_hash)
