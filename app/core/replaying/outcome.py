"""What a pool's time with its sessions came to: agent-hours spent, seconds waited, and how that went over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

BUCKETS = 240
"""Points of a series."""
AT_ONCE = 1.0
"""A session that waits for less than so many seconds was started at once."""


class Levels(NamedTuple):
    """Of one instant. ``free`` counts the slots that a session could take now; agents that are lost are only size."""

    size: int = 0
    pending: int = 0
    idle: int = 0
    running: int = 0
    free: int = 0
    queued: int = 0


class Point(msgspec.Struct, frozen=True, rename="camel"):
    """One of BUCKETS equal parts of the time. Means, but the most sessions that ever waited at once."""

    seconds: float
    """From the start to the part's beginning."""
    agents: float
    idle_slots: float
    running_agents: float
    queued_sessions: int


class Waits(msgspec.Struct, frozen=True, rename="camel"):
    """Seconds that sessions waited for a slot; those that still wait have waited until the end."""

    total: float = 0.0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Result(msgspec.Struct, frozen=True, rename="camel"):
    """``hit_rate`` is None if no session's wait was decided; sessions that ran before the time began count nowhere."""

    seconds: float
    sessions: int
    started: int
    cancelled: int
    queued: int
    hit_rate: float | None
    """Share of sessions that started at once, of those that did or that waited for longer."""
    waits: Waits
    idle_agent_hours: float
    idle_slot_hours: float
    running_agent_hours: float
    pending_agent_hours: float
    agents_created: int
    agents_removed: int
    peak_agents: int
    series: tuple[Point, ...]


class Meter:
    """Takes the levels whenever they have changed, and the sessions' waits, and sums them up."""

    def __init__(self, seconds: float) -> None:
        self.created = self.removed = self.peak = 0
        self.started = self.cancelled = self.queued = self.hits = 0
        self._seconds = seconds
        self._waits: list[float] = []
        self._now = 0.0
        self._levels = Levels()
        self._totals = [0.0] * len(Levels._fields)
        self._areas = [0.0] * len(Levels._fields)
        """Of the present part."""
        self._most_queued = 0
        self._points: list[Point] = []
        self._edge = self._edge_of(1)

    def observe(self, now: float, levels: Levels) -> None:
        """From ``now`` on these hold."""
        self._pass(min(now, self._seconds))
        self._levels = levels
        self.peak = max(self.peak, levels.size)
        self._most_queued = max(self._most_queued, levels.queued)

    def start(self, waited: float) -> None:
        self.started += 1
        self.hits += waited < AT_ONCE
        self._waits.append(waited)

    def cancel(self, waited: float) -> None:
        self.cancelled += 1
        self._waits.append(waited)

    def leave(self, waited: float) -> None:
        """It waits still at the end."""
        self.queued += 1
        self._waits.append(waited)

    def result(self) -> Result:
        self._pass(self._seconds)
        hours = Levels._make(area / 3600 for area in self._totals)
        waits = sorted(self._waits)
        decided = self.hits + sum(waited >= AT_ONCE for waited in waits)
        return Result(
            seconds=self._seconds,
            sessions=len(waits),
            started=self.started,
            cancelled=self.cancelled,
            queued=self.queued,
            hit_rate=self.hits / decided if decided else None,
            waits=waits_of(waits),
            idle_agent_hours=hours.idle,
            idle_slot_hours=hours.free,
            running_agent_hours=hours.running,
            pending_agent_hours=hours.pending,
            agents_created=self.created,
            agents_removed=self.removed,
            peak_agents=self.peak,
            series=tuple(self._points),
        )

    def _pass(self, until: float) -> None:
        while self._now < until:
            to = min(until, self._edge)
            seconds, self._now = to - self._now, to
            for i, level in enumerate(self._levels):
                self._areas[i] += level * seconds
            if to >= self._edge:
                self._close()

    def _close(self) -> None:
        width = self._seconds / BUCKETS
        mean = Levels._make(area / width for area in self._areas)
        at = len(self._points) * width
        self._points.append(Point(at, mean.size, mean.free, mean.running, self._most_queued))
        self._totals = [total + area for total, area in zip(self._totals, self._areas, strict=True)]
        self._areas = [0.0] * len(self._areas)
        self._most_queued = self._levels.queued
        self._edge = self._edge_of(len(self._points) + 1)

    def _edge_of(self, part: int) -> float:
        return self._seconds if part >= BUCKETS else self._seconds * part / BUCKETS


def waits_of(waits: Sequence[float]) -> Waits:
    """Of waits in ascending order; percentiles by nearest rank."""
    if not waits:
        return Waits()

    def percentile(share: float) -> float:
        return waits[max(0, math.ceil(share * len(waits)) - 1)]

    total = math.fsum(waits)
    return Waits(total, total / len(waits), percentile(0.5), percentile(0.95), percentile(0.99), waits[-1])
