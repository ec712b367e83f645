"""Scheduled warmth: against a clock that is stepped minute by minute, and through both changes of daylight saving."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.core.schedules import CHAIN, Change, Outlook, look
from app.model.agentpool import Autoscaler
from app.model.schedule import Schedule

BERLIN = "Europe/Berlin"
LIMITS = Autoscaler(max_replicas=10, min_idle=2, max_idle=4, min_replicas=1)


def at(text: str) -> float:
    """Epoch seconds of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def schedule(expression: str, *, hours: float = 1, zone: str = BERLIN, name: str = "day", idle: int = 5) -> Schedule:
    return Schedule(name, expression, int(hours * 3600), time_zone=zone, min_idle=idle)


def story(one: Schedule, *, start: str, end: str) -> list[tuple[str, str]]:
    """The changes between two times (UTC), as one who sleeps until each of them sees them."""
    seen: list[tuple[str, str]] = []
    outlook = look([one], now=at(start))
    while outlook.change and outlook.change.time < at(end):
        time = datetime.fromtimestamp(outlook.change.time, UTC)
        seen.append((time.strftime("%d %H:%M"), outlook.change.kind))
        outlook = look([one], now=outlook.change.time)
    return seen


def test_working_hours_override_what_the_autoscaler_says() -> None:
    day = Schedule("day", "0 8 * * 1-5", 10 * 3600, time_zone=BERLIN, min_idle=20)
    before = look([day], now=at("2026-06-15T05:59:59"))
    assert before.active == ()
    assert before.apply(LIMITS) is LIMITS
    assert before.change == Change(at("2026-06-15T06:00"), "day", "start")
    during = look([day], now=at("2026-06-15T06:00"))
    assert during.active == ("day",)
    assert (during.apply(LIMITS).min_idle, during.apply(LIMITS).min_replicas) == (20, 1)
    assert during.change == Change(at("2026-06-15T16:00"), "day", "end")
    friday_night = look([day], now=at("2026-06-19T16:00"))
    assert friday_night.active == ()
    assert friday_night.until == at("2026-06-22T06:00")


def test_of_several_the_largest_of_each_number_counts() -> None:
    both = [
        Schedule("night", "0 20 * * *", 12 * 3600, min_idle=0),
        Schedule("batch", "0 22 * * *", 3600, min_idle=3, min_replicas=6),
        Schedule("never mind", "30 22 * * *", 60, min_replicas=2),
    ]
    night = look(both, now=at("2026-06-15T21:00"))
    assert (night.active, night.min_idle, night.min_replicas) == (("night",), 0, None)
    assert night.apply(LIMITS).min_idle == 0
    batch = look(both, now=at("2026-06-15T22:30:30"))
    assert (batch.active, batch.min_idle, batch.min_replicas) == (("night", "batch", "never mind"), 3, 6)
    assert batch.change == Change(at("2026-06-15T22:31"), "never mind", "end")


def test_known_is_kept_until_the_next_change_or_another_spec() -> None:
    day = schedule("0 8 * * *", zone="UTC")
    known = look([day], now=at("2026-06-15T07:00"))
    assert look([day], now=at("2026-06-15T07:59:59"), known=known) is known
    assert look([day], now=at("2026-06-15T08:00"), known=known).active == ("day",)
    assert look([schedule("0 7 * * *")], now=at("2026-06-15T07:59"), known=known) is not known
    assert look([day], now=at("2026-06-15T06:59"), known=known) is not known, "the clock was set back"
    nothing = look([], now=5.0)
    assert (nothing.until, nothing.holds(9e9)) == (None, True)
    assert look([], now=6.0, known=Outlook()).change is None


def test_spring_in_berlin() -> None:
    """29 March 2026: 02:00 (01:00 UTC) becomes 03:00."""
    fixed = story(schedule("30 2 * * *"), start="2026-03-28T00:00", end="2026-03-30T06:00")
    assert fixed == [
        ("28 01:30", "start"), ("28 02:30", "end"),
        ("29 01:00", "start"), ("29 02:00", "end"),  # 02:30 is skipped: at 03:00, the first minute after the gap
        ("30 00:30", "start"), ("30 01:30", "end"),
    ]  # fmt: skip
    stepping = story(schedule("*/30 2 * * *", hours=0.25), start="2026-03-28T12:00", end="2026-03-30T06:00")
    assert [time for time, kind in stepping if kind == "start"] == ["30 00:00", "30 00:30"], "there is no 2 o'clock"
    across = story(schedule("0 1 * * *", hours=3), start="2026-03-28T12:00", end="2026-03-29T12:00")
    assert across == [("29 00:00", "start"), ("29 03:00", "end")], "three real hours: 01:00 to 05:00 by the clock"


def test_autumn_in_berlin() -> None:
    """25 October 2026: 03:00 (01:00 UTC) becomes 02:00."""
    fixed = story(schedule("30 2 * * *", hours=0.25), start="2026-10-24T12:00", end="2026-10-26T12:00")
    assert fixed == [("25 00:30", "start"), ("25 00:45", "end"), ("26 01:30", "start"), ("26 01:45", "end")]
    stepping = story(schedule("*/30 2 * * *", hours=0.25), start="2026-10-24T12:00", end="2026-10-26T00:00")
    assert [time for time, kind in stepping if kind == "start"] == ["25 00:00", "25 00:30", "25 01:00", "25 01:30"]
    second_pass = look([schedule("30 2 * * *", hours=0.25)], now=at("2026-10-25T01:15"))
    assert second_pass.until == at("2026-10-26T01:30"), "02:15 for the second time: 02:30 has been already"


def test_runs_that_follow_each_other_are_one() -> None:
    always = schedule("* * * * *", hours=24, zone="UTC")
    now = at("2026-06-15T07:00:30")
    outlook = look([always], now=now)
    assert outlook.active == ("day",)
    assert outlook.change is not None
    assert (outlook.change.kind, outlook.change.time > now + CHAIN * 60 - 120) == ("check", True)
    hours = story(schedule("0 8-11 * * *", zone="UTC"), start="2026-06-15T00:00", end="2026-06-16T00:00")
    assert hours == [("15 08:00", "start"), ("15 12:00", "end")]


numbers = st.lists(st.integers(0, 59), min_size=1, max_size=3, unique=True)
zones = st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"])
moments = st.sampled_from(["2026-03-29T01:00", "2026-10-25T01:00", "2026-03-08T07:00", "2026-11-01T06:00",
                           "2026-04-04T15:00", "2026-10-03T15:30", "2026-06-01T00:00"])  # fmt: skip


def is_start(minute: datetime, minutes: set[int], hours: set[int] | None, zone: ZoneInfo) -> bool:
    """Debian's rule, from the clock alone; with hours None (``*``) real time counts."""
    local = minute.astimezone(zone)
    if hours is None:
        return local.minute in minutes
    before = (minute - timedelta(minutes=1)).astimezone(zone)
    passed = local.replace(tzinfo=None) - before.replace(tzinfo=None)  # more than a minute after a gap
    skipped = (local.replace(fold=0) - timedelta(minutes=i) for i in range(int(passed.total_seconds()) // 60))
    return local.fold == 0 and any(wall.minute in minutes and wall.hour in hours for wall in skipped)


@settings(max_examples=150, deadline=None)
@given(
    minutes=numbers,
    hours=st.none() | st.lists(st.integers(0, 23), min_size=1, max_size=4, unique=True),
    duration=st.integers(1, 6 * 3600),
    zone=zones,
    moment=moments,
    shift=st.integers(-20 * 3600, 6 * 3600),
)
def test_state_and_next_change_are_those_of_a_clock_stepped_by_the_minute(
    *, minutes: list[int], hours: list[int] | None, duration: int, zone: str, moment: str, shift: int
) -> None:
    assume(hours or zone != "Australia/Lord_Howe")  # cronsim goes by whole hours there, over a change of half an hour
    expression = f"{','.join(map(str, minutes))} {','.join(map(str, hours)) if hours else '*'} * * *"
    one = Schedule("day", expression, duration, time_zone=zone, min_idle=1)
    now, clock = at(moment) + shift, ZoneInfo(zone)
    first = datetime.fromtimestamp((now - duration) // 60 * 60, UTC)
    horizon = first + timedelta(hours=42)
    steps = (first + timedelta(minutes=i) for i in range(42 * 60))
    runs = [m.timestamp() for m in steps if is_start(m, set(minutes), set(hours) if hours else None, clock)]

    def is_active(time: float) -> bool:
        return any(run <= time < run + duration for run in runs)

    edges = sorted({edge for run in runs for edge in (run, run + duration) if now < edge < horizon.timestamp()})
    change = next((edge for edge in edges if is_active(edge) != is_active(now)), None)
    outlook = look([one], now=now)
    assert bool(outlook.active) == is_active(now)
    assert outlook.change is not None
    if outlook.change.kind == "check":
        assert change is None or outlook.change.time <= change
    elif change is None:
        assert outlook.change.time >= horizon.timestamp()
    else:
        assert outlook.change == Change(change, "day", "end" if is_active(now) else "start")


@pytest.mark.parametrize("expression", ["0 0 29 2 *", "0 0 * 2 MON#5", "0 12 L * *"])
def test_rare_days_come(expression: str) -> None:
    outlook = look([schedule(expression, zone="UTC")], now=at("2026-06-15T00:00"))
    assert outlook.change is not None
    assert outlook.change.kind == "start"
