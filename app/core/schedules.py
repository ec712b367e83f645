"""Scheduled warmth: which schedules are active at a time, what they ask for, and when that changes next.

Daylight saving time is dealt with as by Debian's cron, which cronsim follows. A schedule with fixed minutes and hours
starts neither twice nor not at all: a start that the spring change skips comes at the first minute after the gap, one
that the autumn change repeats comes the first time only. A schedule whose minutes or hours begin with ``*`` goes by
real time: it starts in both of the hours that look alike, and not in the skipped one (on Lord Howe, whose clocks change
by half an hour, cronsim may leave out one start then). Durations are real seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim

from app.model.agentpool import Autoscaler
from app.model.schedule import Schedule

CHAIN = 64
"""Runs without a pause between them that are followed to find their end; see ``Outlook.until``."""


class Change(msgspec.Struct, frozen=True):
    """``time`` in epoch seconds. ``check``: the runs of ``schedule`` follow each other further than was looked."""

    time: float
    schedule: str
    kind: Literal["start", "end", "check"]


class Outlook(msgspec.Struct, frozen=True):
    """What the schedules ask for from ``since`` until ``until`` (epoch seconds), and what happens then.

    None for ``min_idle`` or ``min_replicas`` leaves the autoscaler's; None for ``change`` means that none will come.
    """

    schedules: tuple[Schedule, ...] = ()
    since: float = 0.0
    active: tuple[str, ...] = ()
    min_idle: int | None = None
    min_replicas: int | None = None
    change: Change | None = None

    @property
    def until(self) -> float | None:
        """When to look again; nothing changes before. None for never.

        Something does change then, unless the change is a ``check``.
        """
        return self.change.time if self.change else None

    def holds(self, now: float) -> bool:
        """Whether it is still so; not if the clock was set back either."""
        return self.since <= now and (self.change is None or now < self.change.time)

    def apply(self, limits: Autoscaler) -> Autoscaler:
        """The autoscaler's limits with what the active schedules replace; the maxima stay as they are."""
        if self.min_idle is None and self.min_replicas is None:
            return limits
        return msgspec.structs.replace(
            limits,
            min_idle=limits.min_idle if self.min_idle is None else self.min_idle,
            min_replicas=limits.min_replicas if self.min_replicas is None else self.min_replicas,
        )


def look(schedules: Sequence[Schedule], *, now: float, known: Outlook | None = None) -> Outlook:
    """The outlook at ``now`` (epoch seconds): ``known`` itself while it holds, so that time is only spent on changes.

    Where several are active, the largest of each number counts. The schedules must be valid.
    """
    schedules = tuple(schedules)
    if known is not None and known.schedules == schedules and known.holds(now):
        return known
    changes: list[Change] = []
    active: list[Schedule] = []
    for schedule in schedules:
        running, change = _state(schedule, now)
        if running:
            active.append(schedule)
        if change:
            changes.append(change)
    return Outlook(
        schedules=schedules,
        since=now,
        active=tuple(schedule.name for schedule in active),
        min_idle=max((s.min_idle for s in active if s.min_idle is not None), default=None),
        min_replicas=max((s.min_replicas for s in active if s.min_replicas is not None), default=None),
        change=min(changes, key=lambda change: change.time, default=None),
    )


def starts(expression: str, time_zone: str, *, after: float) -> Iterator[float]:
    """All starts later than ``after`` (epoch seconds), in order; the end is 50 years without one.

    Raises CronSimError for an expression that is none; KeyError, ValueError or OSError for an unknown time zone.
    """
    for start in CronSim(expression, datetime.fromtimestamp(after, ZoneInfo(time_zone))):
        # By local time cron goes back to the first pass of a repeated hour, and names the end of a gap several times.
        if (time := start.timestamp()) > after:
            yield time
            after = time


def _state(schedule: Schedule, now: float) -> tuple[bool, Change | None]:
    """Whether it is active, and its next change: told by the first of the runs under way and those that follow it."""
    runs = starts(schedule.schedule, schedule.time_zone, after=now - schedule.duration_second)
    start = next(runs, None)
    if start is None:
        return False, None
    if start > now:
        return False, Change(start, schedule.name, "start")
    end = start + schedule.duration_second
    for start in islice(runs, CHAIN):
        if start > end:
            return True, Change(end, schedule.name, "end")
        end = start + schedule.duration_second
    return True, Change(end, schedule.name, "check")
