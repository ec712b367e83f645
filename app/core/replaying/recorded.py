"""What a history came to, as it was: the same figures as a replay gives, from the recording itself."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from itertools import groupby

from app.core.replaying.fleet import Fleet
from app.core.replaying.history import AgentLife, History, SessionLife
from app.core.replaying.outcome import Meter, Result


class _Kind(IntEnum):
    """In the order in which those of one instant are taken."""

    ASKED = 0
    JOINED = 1
    QUEUED = 2
    STARTED = 3
    UNQUEUED = 4
    ENDED = 5
    LOST = 6
    REJOINED = 7
    REMOVED = 8


_Change = tuple[float, _Kind, str, int]
"""When, what, the agent's name, and its slots."""


def recorded(told: History) -> Result:
    """How the pool met its demand."""
    fleet, meter, queued = Fleet(), Meter(told.seconds), 0
    changes = sorted(_changes(told))
    for now, at_once in groupby(changes, key=lambda change: change[0]):
        for _, kind, agent, slots in at_once:
            queued += (kind is _Kind.QUEUED) - (kind is _Kind.UNQUEUED)
            _apply(fleet, now, kind, agent, slots)
        meter.observe(now, fleet.levels(queued))
    for agent_life in told.agents.values():
        meter.created += agent_life.asked >= 0
        meter.removed += agent_life.gone is not None
    for session in told.sessions:
        _count_wait(meter, session, told.seconds)
    return meter.result()


def _apply(fleet: Fleet, now: float, kind: _Kind, agent: str, slots: int) -> None:
    match kind:
        case _Kind.ASKED:
            fleet.ask(agent, slots=slots, now=now)
        case _Kind.JOINED | _Kind.REJOINED:
            fleet.join(agent, slots=slots, now=now)
        case _Kind.STARTED:
            fleet.take(agent, now=now)
        case _Kind.ENDED:
            fleet.release(agent, now=now)
        case _Kind.LOST:
            fleet.lose(agent, now=now)
        case _Kind.REMOVED:
            fleet.remove(agent)


def _changes(told: History) -> Iterator[_Change]:
    for name, agent in told.agents.items():
        for at, kind in _of_agent(agent):
            yield max(0.0, at), kind, name, agent.slots or told.default_slots(agent.joined or 0.0)
    for session in told.sessions:
        for at, kind in _of_session(session):
            yield max(0.0, at), kind, session.agent, 0


def _of_agent(agent: AgentLife) -> Iterator[tuple[float, _Kind]]:
    yield agent.asked, _Kind.ASKED
    if agent.joined is not None:
        yield agent.joined, _Kind.JOINED
    for count, at in enumerate(agent.breaks):
        yield at, _Kind.REJOINED if count % 2 else _Kind.LOST
    if agent.gone is not None:
        yield agent.gone, _Kind.REMOVED


def _of_session(session: SessionLife) -> Iterator[tuple[float, _Kind]]:
    yield session.requested, _Kind.QUEUED
    over = session.ended if session.started is None else session.started
    if over is not None:
        yield over, _Kind.UNQUEUED
    if session.started is not None:
        yield session.started, _Kind.STARTED
        if session.ended is not None:
            yield session.ended, _Kind.ENDED


def _count_wait(meter: Meter, session: SessionLife, seconds: float) -> None:
    if session.started is not None:
        if session.started >= 0:
            meter.start(max(0.0, session.started - session.requested))
    elif session.ended is not None:
        meter.cancel(max(0.0, session.ended - session.requested))
    else:
        meter.leave(max(0.0, seconds - session.requested))
