"""What a history asked of its pool, apart from how the pool met it: sessions, how long agents took, and who was there.

What the history does not tell is taken as: a session that still ran at the end runs on; one that never started would
have run for the median; one agent more than was recorded joins after the median, with the slots that most have.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import msgspec

from app.core.prediction import JOIN_DEFAULT
from app.core.replaying.history import AgentLife, History, SessionLife


class Arrival(msgspec.Struct, frozen=True):
    """A session: when it comes, and for how many seconds it runs and would wait."""

    at: float
    duration: float = math.inf
    patience: float = math.inf
    priority: int = 0
    carried: bool = False
    """It ran before the time began: it has a slot before all others, and its wait is not counted."""


class Join(msgspec.Struct, frozen=True):
    """How an agent turned out: seconds from being asked for until it joined, and its own slots if not the default."""

    delay: float
    slots: int | None = None


class Demand(msgspec.Struct, frozen=True):
    """Times are seconds from the beginning."""

    seconds: float
    sessions: tuple[Arrival, ...] = ()
    joins: tuple[Join, ...] = ()
    """In the order in which the agents were asked for."""
    present: tuple[Join, ...] = ()
    """Agents that were there at the beginning, each with the delay that was left to it."""

    @property
    def later_join(self) -> Join:
        """For agents beyond those recorded."""
        if not self.joins:
            return Join(JOIN_DEFAULT)
        slots = statistics.mode(join.slots for join in self.joins)
        return Join(statistics.median(join.delay for join in self.joins), slots)


def demand(told: History) -> Demand:
    """The demand of a history."""
    agents = list(told.agents.values())
    asked = sorted((agent for agent in agents if agent.asked >= 0), key=lambda agent: agent.asked)
    return Demand(
        seconds=told.seconds,
        sessions=tuple(_arrivals(told.sessions)),
        joins=tuple(_joins(asked)),
        present=tuple(_joins(agent for agent in agents if agent.asked < 0)),
    )


def _joins(agents: Iterable[AgentLife]) -> Iterable[Join]:
    """One that never joined tells nothing of how long others take."""
    for agent in agents:
        if agent.joined is not None:
            yield Join(max(0.0, agent.joined - max(0.0, agent.asked)), agent.slots)


def _arrivals(sessions: Iterable[SessionLife]) -> Iterable[Arrival]:
    known = [_duration(s) for s in sessions if s.started is not None and s.started >= 0 and s.ended is not None]
    typical = statistics.median(known) if known else math.inf
    for session in sessions:
        if session.started is not None and session.started < 0:
            yield Arrival(at=0.0, duration=_duration(session), priority=session.priority, carried=True)
        elif session.started is not None:
            yield Arrival(at=session.requested, duration=_duration(session), priority=session.priority)
        else:
            patience = math.inf if session.ended is None else max(0.0, session.ended - session.requested)
            yield Arrival(at=session.requested, duration=typical, patience=patience, priority=session.priority)


def _duration(session: SessionLife) -> float:
    """Within the time that the trace covers."""
    if session.ended is None:
        return math.inf
    return max(0.0, session.ended - max(0.0, session.started or 0.0))
