"""A trace's records made into lives: when each agent and each session came and went."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.core.trace import (
    AgentAsked,
    AgentCreated,
    AgentEvent,
    AgentJoined,
    AgentLost,
    AgentRemoved,
    Header,
    LimitsSet,
    Record,
    SessionCancelled,
    SessionEnded,
    SessionEvent,
    SessionRequested,
    SessionReturned,
    SessionStarted,
)
from app.model.agentpool import Autoscaler
from app.model.meta import NamespacedName


class TraceError(ValueError):
    """The records are not the trace of one pool."""


@dataclass(slots=True)
class AgentLife:
    """Times as in History. One that was there before the trace began has ``asked`` -inf."""

    asked: float
    joined: float | None = None
    slots: int | None = None
    """None if it has as many as the default of the time when it joined."""
    breaks: list[float] = field(default_factory=list)
    """When its stream broke, when it came back, when it broke again …"""
    gone: float | None = None
    doubted: float | None = None
    """Since a header that no word of it has followed."""


@dataclass(slots=True)
class SessionLife:
    """Times as in History. One that ran before the trace began has ``requested`` -inf."""

    requested: float
    priority: int = 0
    started: float | None = None
    agent: str = ""
    ended: float | None = None
    """Or cancelled, if it never started."""
    doubted: float | None = None


@dataclass
class History:
    """What one trace tells. Times are seconds since ``began`` (epoch seconds), before it negative."""

    pool: NamespacedName
    began: float
    seconds: float
    limits: list[tuple[float, Autoscaler]]
    """Each with the time from which it held, in that order; at least one, and the first from the beginning."""
    agents: dict[str, AgentLife]
    sessions: list[SessionLife]

    def default_slots(self, at: float) -> int:
        """Of an agent that joins at that time."""
        index = bisect.bisect_right(self.limits, at, key=lambda held: held[0])
        return self.limits[max(0, index - 1)][1].default_slots_per_agent


def history(records: Iterable[Record]) -> History:
    """Of records in the order in which they were written. Raises TraceError."""
    reader = _Reader()
    for record in records:
        reader.read(record)
    return reader.finish()


class _Reader:
    def __init__(self) -> None:
        self.pool: NamespacedName | None = None
        self.began = self.last = 0.0
        self.limits: list[tuple[float, Autoscaler]] = []
        self.agents: dict[str, AgentLife] = {}
        self.sessions: list[SessionLife] = []
        self.open: dict[str, SessionLife] = {}

    def read(self, record: Record) -> None:
        if isinstance(record, Header):
            self._header(record)
            return
        if self.pool is None:
            raise TraceError("the first record is no header")
        at = self._time(record.at)
        if isinstance(record, LimitsSet):
            self._limits(at, record.limits)
        elif isinstance(record, AgentEvent):
            self._agent(at, record)
        else:
            self._session(at, record)

    def _header(self, header: Header) -> None:
        if self.pool is None:
            self.pool, self.began = header.pool, header.at
        if header.pool != self.pool:
            raise TraceError(f"a trace of {header.pool} among those of {self.pool}")
        at = self._time(header.at)
        lives: list[AgentLife | SessionLife] = [*self.agents.values(), *self.open.values()]
        for life in lives:
            if life.doubted is None:
                life.doubted = at

    def _time(self, at: float) -> float:
        seconds = round(at - self.began, 6)
        self.last = max(self.last, seconds)
        return seconds

    def _limits(self, at: float, limits: Autoscaler) -> None:
        if not self.limits:
            self.limits.append((0.0, limits))
        elif at >= self.limits[-1][0] and limits != self.limits[-1][1]:
            self.limits.append((at, limits))

    def _agent(self, at: float, record: AgentEvent) -> None:
        asked = isinstance(record, AgentAsked | AgentCreated)
        life = self.agents.get(record.agent)
        if life is None:
            life = self.agents[record.agent] = AgentLife(asked=at if asked else -math.inf)
            if not asked:
                life.joined = 0.0
        life.doubted = None
        broken = len(life.breaks) % 2 == 1
        match record:
            case AgentJoined():
                if life.joined is None:
                    life.joined = at
                elif broken:
                    life.breaks.append(at)
                default = self.limits[-1][1].default_slots_per_agent if self.limits else 1
                life.slots = None if record.slots == default else record.slots
            case AgentLost() if not broken:
                life.breaks.append(at)
            case AgentRemoved() if life.gone is None:
                life.gone = at

    def _session(self, at: float, record: SessionEvent) -> None:
        life = self.open.get(record.session)
        if isinstance(record, SessionRequested):
            if life and life.requested == at:
                life.doubted = None
                return
            if life:
                life.ended = at
            self._enter(record.session, SessionLife(requested=at, priority=record.priority))
            return
        if life is None:
            if isinstance(record, SessionCancelled):
                return
            life = self._enter(record.session, SessionLife(requested=-math.inf, started=-math.inf))
        life.doubted = None
        match record:
            case SessionStarted():
                life.started = at if life.started is None else life.started
                life.agent = record.agent
            case SessionReturned():
                life.started, life.agent = None, ""
            case SessionEnded() | SessionCancelled():
                life.ended = at
                del self.open[record.session]

    def _enter(self, session: str, life: SessionLife) -> SessionLife:
        self.sessions.append(life)
        self.open[session] = life
        return life

    def finish(self) -> History:
        if self.pool is None:
            raise TraceError("there is no header")
        if not self.limits:
            raise TraceError(f"the trace of {self.pool} does not say which limits held")
        for agent in self.agents.values():
            agent.gone = agent.doubted if agent.gone is None else agent.gone
        for session in self.open.values():
            session.ended = session.doubted
        return History(self.pool, self.began, self.last, self.limits, self.agents, self.sessions)
