"""A pool's workers: each pod joined with what the broker knows of it, in one of the states of the autoscaling rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from app.core.agents import AgentView
from app.model.meta import TEMPLATE_HASH_LABEL
from app.model.pod import Pod


class State(StrEnum):
    """pending → idle ⇄ running → lost → gone; unknown → idle or running when it joins, gone when it does not."""

    PENDING = "pending"
    IDLE = "idle"
    RUNNING = "running"
    UNKNOWN = "unknown"
    """Its container ran before we watched, and it has not joined since."""
    LOST = "lost"
    """It had joined, and its stream broke."""
    FINISHED = "finished"
    """The pod ended (Succeeded or Failed, which includes Evicted): nothing runs in it any more."""
    TERMINATING = "terminating"


LIVE = frozenset({State.PENDING, State.IDLE, State.RUNNING, State.UNKNOWN, State.LOST})
"""States that count as size."""


class Worker(msgspec.Struct, frozen=True):
    """One worker. ``since`` (monotonic seconds): when it became idle, lost or unknown; ``created`` in epoch seconds."""

    name: str
    uid: str
    state: State
    slots: int
    sessions: int = 0
    since: float = 0.0
    created: float = 0.0
    node: str = ""
    template_hash: str = ""
    joined: bool = False
    """The broker knows it: it has joined since this process began to lead."""
    reason: str = ""

    @property
    def free(self) -> int:
        """Slots that a session could take, now (idle, running) or once it joins (pending)."""
        return max(0, self.slots - self.sessions) if self.state in (State.PENDING, State.IDLE, State.RUNNING) else 0


def classify(
    pods: Iterable[Pod],
    agents: Mapping[str, AgentView],
    *,
    default_slots: int,
    inherited: Collection[str],
    inherited_since: float,
    deleting: Collection[str],
) -> list[Worker]:
    """Workers of the pods, in the order of their names.

    ``inherited``: uids of pods whose containers already ran when this process began to lead, at ``inherited_since``;
    ``deleting``: uids of pods whose deletion was asked for and is not yet seen.
    """
    workers = []
    for pod in pods:
        meta = pod.metadata
        agent = agents.get(meta.name)
        state = _state(pod, agent, inherited=meta.uid in inherited, deleting=meta.uid in deleting)
        workers.append(
            Worker(
                name=meta.name,
                uid=meta.uid,
                state=state,
                slots=agent.slots if agent else default_slots,
                sessions=agent.sessions if agent else 0,
                since=agent.since if agent else inherited_since,
                created=_epoch(meta.creation_timestamp),
                node=pod.spec.node_name,
                template_hash=meta.label(TEMPLATE_HASH_LABEL),
                joined=agent is not None,
                reason=pod.status.reason,
            )
        )
    return sorted(workers, key=lambda worker: worker.name)


def _state(pod: Pod, agent: AgentView | None, *, inherited: bool, deleting: bool) -> State:
    if deleting or pod.metadata.deletion_timestamp or (agent and agent.draining):
        return State.TERMINATING
    if pod.status.phase in ("Succeeded", "Failed"):
        return State.FINISHED
    if agent is None:
        return State.UNKNOWN if inherited else State.PENDING
    if not agent.connected:
        return State.LOST
    return State.RUNNING if agent.sessions else State.IDLE


def _epoch(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0
