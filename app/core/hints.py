"""What worker pods tell the cluster's other controllers of their sessions: annotations that follow the agent's state.

A node with a busy agent is not taken away by the cluster autoscaler, and whoever counts pods down takes idle ones
first. A key that the pod's own template sets stays as the user wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from app.core.workers import State, Worker
from app.model.meta import DELETION_COST, SAFE_TO_EVICT

KEYS = (DELETION_COST, SAFE_TO_EVICT)


class Hint(msgspec.Struct, frozen=True):
    """Annotations that a worker's pod should have and has not."""

    name: str
    uid: str
    annotations: Mapping[str, str]


def values(sessions: int) -> dict[str, str]:
    """The annotations of an agent with so many sessions."""
    return {DELETION_COST: str(sessions), SAFE_TO_EVICT: "false" if sessions else "true"}


def chosen(template: Mapping[str, Any]) -> frozenset[str]:
    """The keys that the user's template sets, and that are none of ours then."""
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    return frozenset(key for key in KEYS if key in annotations)


def due(workers: Iterable[Worker], chosen_by: Callable[[str], frozenset[str]]) -> tuple[Hint, ...]:
    """What has changed. Of an agent that is lost or unknown nothing new is known: what was said of it stands.

    ``chosen_by`` tells the keys that the template with a hash sets.
    """
    return tuple(
        hint
        for worker in workers
        if worker.state in (State.IDLE, State.RUNNING) and _differs(worker) and (hint := _hint(worker, chosen_by))
    )


def _differs(worker: Worker) -> bool:
    cost, evict = worker.hints
    return cost != str(worker.sessions) or evict != ("false" if worker.sessions else "true")


def _hint(worker: Worker, chosen_by: Callable[[str], frozenset[str]]) -> Hint | None:
    kept, told = chosen_by(worker.template_hash), dict(zip(KEYS, worker.hints, strict=True))
    wanted = {key: value for key, value in values(worker.sessions).items() if key not in kept and told[key] != value}
    return Hint(worker.name, worker.uid, wanted) if wanted else None
