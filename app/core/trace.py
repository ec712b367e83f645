"""A pool's trace: what was asked of it and what its agents did, one JSON object a line, to be replayed later.

A file begins with a header and what had happened to all that was alive by then, so that each file can be read alone,
and one after the other as well. Times are epoch seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import msgspec

from app.model.agentpool import Autoscaler
from app.model.meta import NamespacedName

VERSION = 1
LIVING_LIMIT = 100_000
"""Sessions, and agents, that are remembered for the next file's beginning; should more be alive, the oldest go."""


def _tag(name: str) -> str:
    return name[0].lower() + name[1:]


class Event(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, tag_field="type", tag=_tag):
    at: float


class Header(Event, frozen=True):
    """Of this file, or of a process that went on with it: what is not named again after it has gone meanwhile."""

    pool: NamespacedName
    version: int


class LimitsSet(Event, frozen=True):
    """The numbers in force from now on, schedules and predictions included."""

    limits: Autoscaler


class SessionRequested(Event, frozen=True):
    """It waits for a slot. ``session`` tells it from all others that live."""

    session: str
    priority: int = 0


class SessionStarted(Event, frozen=True):
    """It has a slot: the agent was asked to start it."""

    session: str
    agent: str


class SessionReturned(Event, frozen=True):
    """The start failed: it waits again, and has waited since its request."""

    session: str


class SessionEnded(Event, frozen=True):
    session: str


class SessionCancelled(Event, frozen=True):
    """It was given up while it waited."""

    session: str


class AgentAsked(Event, frozen=True):
    """Decided on; its pod is to be created."""

    agent: str


class AgentCreated(Event, frozen=True):
    """The API server has its pod."""

    agent: str


class AgentJoined(Event, frozen=True):
    """For the first time, or again after it was lost."""

    agent: str
    slots: int


class AgentLost(Event, frozen=True):
    """Its stream broke."""

    agent: str


class AgentRemoved(Event, frozen=True):
    """Its pod is gone, was never created, or is being deleted."""

    agent: str


SessionEvent: TypeAlias = SessionRequested | SessionStarted | SessionReturned | SessionEnded | SessionCancelled
AgentEvent: TypeAlias = AgentAsked | AgentCreated | AgentJoined | AgentLost | AgentRemoved
Record: TypeAlias = Header | LimitsSet | SessionEvent | AgentEvent

TYPES = frozenset(_tag(kind.__name__) for kind in (Header, LimitsSet, *SessionEvent.__args__, *AgentEvent.__args__))

Recorder: TypeAlias = Callable[[NamespacedName, Record], None]
"""Takes what happens in a pool."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


class _AnyRecord(msgspec.Struct):
    type: str


_any_decoder = msgspec.json.Decoder(_AnyRecord)


class BadLine(msgspec.Struct, frozen=True):
    number: int
    """Of the line, from 1."""
    message: str


class Decoded(msgspec.Struct):
    """What a file held: records in its order, how many there were of types that we do not know, and broken lines."""

    records: list[Record] = []
    unknown: dict[str, int] = {}
    bad: list[BadLine] = []


def nobody(pool: NamespacedName, record: Record) -> None:
    """Takes it, and keeps no trace."""


def encode(record: Record) -> bytes:
    """One line, its end included."""
    return _encoder.encode(record) + b"\n"


def decode(lines: Iterable[bytes]) -> Decoded:
    """All that can be read of it; raises nothing for what the lines hold."""
    found = Decoded()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.records.append(_decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if kind := _unknown_type(line):
                found.unknown[kind] = found.unknown.get(kind, 0) + 1
            else:
                found.bad.append(BadLine(number, str(error)))
    return found


def _unknown_type(line: bytes) -> str:
    """The record's type if it is one of a newer version, else empty."""
    try:
        kind = _any_decoder.decode(line).type
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return "" if kind in TYPES else kind


class Living:
    """What is alive after the records so far: those of them that the next file must begin with."""

    def __init__(self) -> None:
        self._limits: LimitsSet | None = None
        self._sessions: dict[str, dict[type[Record], Record]] = {}
        self._agents: dict[str, dict[type[Record], Record]] = {}

    def apply(self, record: Record) -> bool:
        """False if it says nothing new: the limits are as they were."""
        match record:
            case Header():
                return True
            case LimitsSet(limits=limits):
                if self._limits and self._limits.limits == limits:
                    return False
                self._limits = record
            case SessionEnded() | SessionCancelled():
                self._sessions.pop(record.session, None)
            case AgentRemoved():
                self._agents.pop(record.agent, None)
            case SessionRequested():
                self._sessions.pop(record.session, None)
                _keep(self._sessions, record.session, record)
            case SessionReturned():
                self._sessions.get(record.session, {}).pop(SessionStarted, None)
            case SessionStarted():
                _keep(self._sessions, record.session, record)
            case AgentJoined():
                _keep(self._agents, record.agent, record).pop(AgentLost, None)
            case _:
                _keep(self._agents, record.agent, record)
        return True

    def records(self) -> Iterator[Record]:
        """What happened to the living, each in the order in which it did."""
        if self._limits:
            yield self._limits
        for one in (*self._agents.values(), *self._sessions.values()):
            yield from one.values()


def _keep(living: dict[str, dict[type[Record], Record]], name: str, record: Record) -> dict[type[Record], Record]:
    """Only the first of each type counts: an agent that joins again has still joined when it first did."""
    if name not in living and len(living) >= LIVING_LIMIT:
        del living[next(iter(living))]
    of_it = living.setdefault(name, {})
    of_it.setdefault(type(record), record)
    return of_it
