"""Whom to remove: pending workers first, the youngest first, then the idle ones that are missed least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from app.core.workers import LIVE, State, Worker


def removal_order(workers: Sequence[Worker]) -> list[Worker]:
    """Workers that scaling may remove, the first to go first. One with a session is never among them.

    Of the idle ones, those go first whose removal loses the fewest warm slots, then those with the fewest
    companions on their node (so that the cluster's own autoscaler can take the node), then the longest idle.
    """
    companions = Counter(worker.node for worker in workers if worker.state in LIVE)
    pending = [worker for worker in workers if worker.state is State.PENDING]
    idle = [worker for worker in workers if worker.state is State.IDLE and not worker.sessions]
    pending.sort(key=lambda worker: (-worker.created, worker.name))
    idle.sort(key=lambda worker: (worker.slots, companions[worker.node], worker.since, worker.name))
    return pending + idle
