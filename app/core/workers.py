"""A pool's workers: each pod joined with what the broker knows of it, in one of the states of the autoscaling rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from operator import attrgetter

import msgspec

from app.core.agents import AgentView
from app.core.diagnosis import HELD, Cause, Problem, diagnose
from app.model.meta import DELETION_COST, SAFE_TO_EVICT, TEMPLATE_HASH_LABEL, ObjectMeta
from app.model.pod import Pod

PROBLEM_GRACE = 20.0
"""Seconds that a pod has to get over a failed image pull, a crash or a missing mount by itself."""
STUCK_AFTER = 60.0
"""Seconds beyond its grace period after which a terminating pod is stuck: its node is gone, or a finalizer holds it."""


class State(StrEnum):
    """pending → idle ⇄ running → lost → gone; unknown → idle or running when it joins, gone when it does not."""

    PENDING = "pending"
    HELD = "held"
    """Pending for longer than agents may take to join, for a cause outside the pod: kept, but not counted on."""
    BROKEN = "broken"
    """Pending, and not expected to become an agent: to be replaced."""
    IDLE = "idle"
    RUNNING = "running"
    UNKNOWN = "unknown"
    """Its container ran before we watched, and it has not joined since."""
    LOST = "lost"
    """It had joined, and its stream broke."""
    FINISHED = "finished"
    """The pod ended (Succeeded or Failed, which includes Evicted): nothing runs in it any more."""
    TERMINATING = "terminating"

    # As the text that it is: Enum's own is written in Python, and every count of workers asks for it.
    __hash__ = str.__hash__


JOINED = frozenset({State.IDLE, State.RUNNING})
"""They have their stream, and may take sessions."""
WAITING = frozenset({State.PENDING, State.HELD, State.BROKEN})
"""Asked for, and not joined yet."""
LIVE = frozenset({State.UNKNOWN, State.LOST}) | JOINED | WAITING
"""States that count as size."""


_TAKING = JOINED | {State.PENDING}


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Of a pod that has not joined, or is terminating: since when (monotonic seconds), and what ails it since when."""

    since: float
    terminating: bool = False
    problem: Problem | None = None
    problem_since: float = 0.0
    version: str = ""
    """The pod's resourceVersion that this was found in."""


class Worker(msgspec.Struct, frozen=True, gc=False):
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
    problem: Problem | None = None
    stuck: bool = False
    """Terminating for much longer than its grace period."""
    recheck_at: float | None = None
    """When its state changes though nothing happens (monotonic seconds)."""
    hints: tuple[str, str] = ("", "")
    """What its pod says of DELETION_COST and SAFE_TO_EVICT (core/hints)."""

    @property
    def free(self) -> int:
        """Slots that a session could take, now (idle, running) or once it joins (pending)."""
        if self.sessions >= self.slots or self.state not in _TAKING:
            return 0
        return self.slots - self.sessions


def track(
    known: Mapping[str, Wait], pods: Iterable[Pod], agents: Mapping[str, AgentView], *, now: float
) -> Mapping[str, Wait]:
    """By uid: the pods that have not joined or are terminating, each with when that began as far as we have seen."""
    waits: dict[str, Wait] = {}
    for pod in pods:
        meta = pod.metadata
        terminating = meta.deletion_timestamp is not None
        if meta.name in agents and not terminating:
            continue
        wait = known.get(meta.uid)
        if wait is None or not meta.resource_version or wait.version != meta.resource_version:
            wait = _wait(pod, wait, terminating=terminating, now=now)
        waits[meta.uid] = wait
    return waits


def _wait(pod: Pod, wait: Wait | None, *, terminating: bool, now: float) -> Wait:
    """What has become of it with a new version of the pod."""
    problem, version = diagnose(pod), pod.metadata.resource_version
    if wait is None or wait.terminating != terminating:
        return Wait(since=now, terminating=terminating, problem=problem, problem_since=now, version=version)
    ours = problem == wait.problem or (problem and wait.problem and problem.cause is wait.problem.cause)
    since = wait.problem_since if ours else now
    return msgspec.structs.replace(wait, problem=problem, problem_since=since, version=version)


def classify(
    pods: Iterable[Pod],
    agents: Mapping[str, AgentView],
    *,
    default_slots: int,
    join_timeout: float,
    inherited: Mapping[str, float],
    deleting: Collection[str],
    waits: Mapping[str, Wait],
    now: float,
) -> list[Worker]:
    """Workers of the pods, in the order of their names.

    ``inherited``: uids of pods whose containers already ran when we first had them, with when that was;
    ``deleting``: uids of pods whose deletion was asked for and is not yet seen; ``waits``: what ``track`` gave.
    """
    workers = []
    for pod in pods:
        meta, (template_hash, hints) = pod.metadata, _marks(pod.metadata)
        agent = agents.get(meta.name)
        wait = waits.get(meta.uid)
        state = state_of(pod, agent, inherited=meta.uid in inherited, deleting=meta.uid in deleting)
        problem, recheck_at, stuck = wait.problem if wait else None, None, False
        if state is State.PENDING and wait:
            state, problem, recheck_at = _patience(wait, join_timeout, now)
        elif wait and wait.terminating:
            recheck_at = wait.since + meta.deletion_grace_period_seconds + STUCK_AFTER
            stuck = now >= recheck_at
        workers.append(
            Worker(
                name=meta.name,
                uid=meta.uid,
                state=state,
                slots=agent.slots if agent else default_slots,
                sessions=agent.sessions if agent else 0,
                since=agent.since if agent else inherited.get(meta.uid, 0.0),
                created=_epoch(meta.creation_timestamp),
                node=pod.spec.node_name,
                template_hash=template_hash,
                joined=agent is not None,
                problem=problem,
                stuck=stuck,
                recheck_at=recheck_at if recheck_at is not None and recheck_at > now else None,
                hints=hints,
            )
        )
    return sorted(workers, key=attrgetter("name"))


def alike(old: Pod, new: Pod) -> bool:
    """Whether nothing is to be decided anew because the pod has changed; of one that nobody owns, something always is.

    Its node and its addresses are read when something else gives reason to. What others note on it (a network
    plugin on every pod that starts) says nothing of the agent.
    """
    before, after = old.metadata, new.metadata
    return (
        bool(after.controller_uid())
        and before.uid == after.uid
        and before.deletion_timestamp == after.deletion_timestamp
        and _marks(before) == _marks(after)
        and before.owner_references == after.owner_references
        and diagnose(old) == diagnose(new)
    )


def _marks(meta: ObjectMeta) -> tuple[str, tuple[str, str]]:
    """What is read of a pod's labels and annotations: its template's hash and its hints (``Worker.hints``)."""
    return meta.label(TEMPLATE_HASH_LABEL), (meta.annotation(DELETION_COST), meta.annotation(SAFE_TO_EVICT))


def ailing(workers: Iterable[Worker]) -> str:
    """What keeps an agent that is on its way, one for all; empty when nothing is known to."""
    return next((str(worker.problem) for worker in workers if worker.problem and worker.state in WAITING), "")


def state_of(pod: Pod | None, agent: AgentView | None, *, inherited: bool = False, deleting: bool = False) -> State:
    """Of a pod, an agent that has joined, or both that are one; a pending one's patience left out."""
    if deleting or (pod and pod.metadata.deletion_timestamp):
        return State.TERMINATING
    if pod and pod.status.ended:
        return State.FINISHED
    if agent is None:
        return State.UNKNOWN if inherited else State.PENDING
    if agent.draining:
        return State.TERMINATING
    if not agent.connected:
        return State.LOST
    return State.RUNNING if agent.sessions else State.IDLE


def _patience(wait: Wait, join_timeout: float, now: float) -> tuple[State, Problem | None, float | None]:
    """How long a pending pod is counted on: state, problem, and when to look again."""
    late_at, problem = wait.since + join_timeout, wait.problem
    if problem and problem.cause in HELD:
        return (State.HELD if now >= late_at else State.PENDING), problem, late_at
    if problem:
        broken_at = min(late_at, wait.problem_since + PROBLEM_GRACE)
        return (State.BROKEN if now >= broken_at else State.PENDING), problem, broken_at
    if now >= late_at:
        text = f"the agent has not joined within {join_timeout:.0f} s (joinTimeoutSecond)"
        return State.BROKEN, Problem(Cause.NEVER_JOINED, "NeverJoined", text), late_at
    return State.PENDING, None, late_at


def _epoch(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0
