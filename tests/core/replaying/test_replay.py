"""Replays by hand, and what holds in every one."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.replaying import replay as replays
from app.core.replaying.demand import Arrival, Demand, Join
from app.core.replaying.outcome import Result, Waits, waits_of
from app.core.replaying.replay import Limits, replay
from app.core.scaling import Pool
from app.model.agentpool import Autoscaler


def limits(**numbers: Any) -> Limits:
    return [(0.0, Autoscaler(**({"max_replicas": 5, "min_idle": 1, "max_idle": 2} | numbers)))]


def seconds(hours: float) -> float:
    return round(hours * 3600, 6)


def test_a_session_that_finds_an_idle_agent() -> None:
    """Agent 1 joins at 10 and runs from 100 to 130; its replacement joins at 110; one of both goes at 190."""
    wanted = Demand(200.0, sessions=(Arrival(at=100.0, duration=30.0),), joins=(Join(10.0), Join(10.0)))
    result = replay(wanted, limits())
    assert result.waits == Waits()
    assert (result.hit_rate, result.started) == (1.0, 1)
    assert seconds(result.pending_agent_hours) == 10 + 10
    assert seconds(result.running_agent_hours) == 30
    assert seconds(result.idle_agent_hours) == (100 - 10) + (200 - 110) + (190 - 130)
    assert (result.agents_created, result.agents_removed, result.peak_agents) == (2, 1, 2)


def test_a_session_that_waits_for_just_as_long_as_an_agent_takes() -> None:
    wanted = Demand(200.0, sessions=(Arrival(at=100.0, duration=30.0),), joins=(Join(17.0),))
    result = replay(wanted, limits(min_idle=0, max_idle=0))
    assert result.waits == Waits(total=17.0, mean=17.0, p50=17.0, p95=17.0, p99=17.0, max=17.0)
    assert result.hit_rate == 0.0
    assert seconds(result.idle_agent_hours) == 0  # maxIdle 0: it goes at once
    assert (result.agents_created, result.agents_removed, result.peak_agents) == (1, 1, 1)


def test_sessions_wait_in_the_order_of_priority_at_the_maximum() -> None:
    sessions = (
        Arrival(at=10.0, duration=5.0),
        Arrival(at=11.0, duration=5.0),
        Arrival(at=12.0, duration=5.0, priority=1),
        Arrival(at=13.0, duration=5.0, patience=3.0),
    )
    result = replay(Demand(60.0, sessions=sessions, joins=(Join(0.0),)), limits(max_replicas=1))
    # One after the other: 10-15, the third 15-20, the second 20-25; the fourth has gone at 16.
    assert result.waits.total == 0 + (20 - 11) + (15 - 12) + 3
    assert (result.started, result.cancelled, result.queued) == (3, 1, 0)
    assert result.hit_rate == pytest.approx(1 / 4)


def test_sessions_that_still_wait_at_the_end() -> None:
    sessions = (Arrival(at=1.0), Arrival(at=2.0))
    result = replay(Demand(50.0, sessions=sessions, joins=(Join(0.0),)), limits(max_replicas=1))
    assert (result.started, result.queued, result.waits.total) == (1, 1, 48.0)
    assert result.series[-1].queued_sessions == 1


def test_slots_that_an_agent_says_it_has() -> None:
    sessions = tuple(Arrival(at=20.0) for _ in range(4))
    wanted = Demand(40.0, sessions=sessions, joins=(Join(5.0, slots=4), Join(100.0)))
    result = replay(wanted, limits(max_idle=4))
    assert (result.started, result.waits.total) == (4, 0)
    assert seconds(result.idle_slot_hours) == 4 * 15


def test_limits_that_change() -> None:
    changing = [*limits(min_idle=0), (100.0, Autoscaler(max_replicas=5, min_idle=3, max_idle=3))]
    result = replay(Demand(200.0, joins=(Join(10.0),) * 3), changing)
    assert seconds(result.idle_agent_hours) == 3 * 90
    assert [(point.seconds, point.idle_slots) for point in (result.series[0], result.series[-1])] == [
        (0.0, 0.0),
        (pytest.approx(199.1666666), pytest.approx(3)),
    ]


def test_a_default_of_slots_that_changes_while_an_agent_is_pending() -> None:
    changing = [*limits(), (5.0, Autoscaler(max_replicas=5, min_idle=2, max_idle=4, default_slots_per_agent=2))]
    result = replay(Demand(20.0, joins=(Join(10.0),)), changing)
    assert result.agents_created == 1
    assert seconds(result.idle_slot_hours) == 2 * 10


def test_agents_and_sessions_that_were_there_before() -> None:
    wanted = Demand(
        100.0,
        sessions=(Arrival(at=-4.0, duration=10.0), Arrival(at=0.0, duration=10.0, carried=True)),
        present=(Join(0.0), Join(6.0)),
    )
    result = replay(wanted, limits(min_idle=0, max_idle=0))
    assert (result.sessions, result.started, result.waits.total) == (1, 1, 10.0)
    assert (result.agents_created, result.agents_removed, result.peak_agents) == (0, 2, 2)


def test_joins_beyond_those_recorded_take_the_median() -> None:
    sessions = tuple(Arrival(at=100.0 * i) for i in range(1, 5))
    wanted = Demand(500.0, sessions=sessions, joins=(Join(1.0), Join(5.0), Join(30.0)))
    assert replay(wanted, limits(min_idle=0, max_idle=0)).waits.total == 1 + 5 + 30 + 5


def test_nothing_at_all() -> None:
    result = replay(Demand(0.0), limits(min_idle=0))
    assert (result.hit_rate, result.sessions, result.series) == (None, 0, ())


def test_percentiles_by_nearest_rank() -> None:
    assert waits_of([float(i) for i in range(1, 101)]) == Waits(5050.0, 50.5, 50.0, 95.0, 99.0, 100.0)
    assert waits_of([3.0]) == Waits(3.0, 3.0, 3.0, 3.0, 3.0, 3.0)


moments = st.integers(0, 2000).map(float)
spans = st.integers(0, 400).map(float)
arrivals = st.builds(
    Arrival,
    at=moments,
    duration=st.one_of(spans, st.just(math.inf)),
    patience=st.one_of(spans, st.just(math.inf)),
    priority=st.integers(0, 2),
)
joins = st.builds(Join, delay=spans, slots=st.one_of(st.none(), st.integers(1, 4)))
demands = st.builds(
    Demand,
    seconds=st.integers(1, 2400).map(float),
    sessions=st.lists(arrivals, max_size=30).map(tuple),
    joins=st.lists(joins, max_size=10).map(tuple),
    present=st.lists(joins, max_size=3).map(tuple),
)
numbers = st.builds(
    Autoscaler,
    max_replicas=st.integers(0, 8),
    min_idle=st.integers(0, 6),
    max_idle=st.integers(0, 8),
    min_replicas=st.integers(0, 4),
    idle_decay_second=st.integers(0, 120),
    default_slots_per_agent=st.integers(1, 3),
)
held = st.tuples(numbers, st.lists(st.tuples(moments, numbers), max_size=2)).map(
    lambda drawn: [(0.0, drawn[0]), *sorted(drawn[1], key=lambda change: change[0])]
)


@given(demands, held)
@settings(deadline=None)
def test_every_session_starts_once_or_is_given_up_or_waits(wanted: Demand, limits: Limits) -> None:
    result = replay(wanted, limits)
    came = sum(session.at <= wanted.seconds for session in wanted.sessions)
    assert result.sessions == came == result.started + result.cancelled + result.queued
    most = max(limit.max_replicas for _, limit in limits)
    assert result.peak_agents <= max(most, len(wanted.present))
    kept = result.agents_created + len(wanted.present) - result.agents_removed
    assert 0 <= kept <= result.peak_agents
    span = sum(point.agents for point in result.series) * wanted.seconds / len(result.series) / 3600
    parts = result.pending_agent_hours + result.idle_agent_hours + result.running_agent_hours
    assert span == pytest.approx(parts, abs=1e-9)


@given(demands, held)
@settings(deadline=None)
def test_a_picture_of_those_that_may_go_decides_as_one_of_all(wanted: Demand, limits: Limits) -> None:
    assert replay(wanted, limits) == _Whole(wanted, limits).run()


class _Whole(replays._Replay):
    """Shows the rules every agent, as the controller does."""

    def _picture(self) -> Pool:
        return Pool(
            limits=self.limits,
            workers=list(self.fleet),
            pending_sessions=len(self.queue),
            decay_since=self.decay_since,
        )


@given(
    st.lists(st.builds(Arrival, at=moments, duration=spans), max_size=30).map(tuple),
    spans,
    st.integers(0, 5),
    st.integers(0, 5),
)
@settings(deadline=None)
def test_more_warmth_never_lets_sessions_wait_longer(
    sessions: tuple[Arrival, ...], delay: float, fewer: int, more: int
) -> None:
    """With one slot an agent, equal delays, room for all, and agents that never go."""
    wanted = Demand(5000.0, sessions=sessions, joins=(Join(delay),))

    def waited(min_idle: int) -> Result:
        return replay(wanted, limits(max_replicas=100, min_idle=min_idle, max_idle=100, idle_decay_second=10_000))

    little, much = waited(fewer), waited(fewer + more)
    assert much.waits.total <= little.waits.total
    assert (much.hit_rate or 0) >= (little.hit_rate or 0)


def test_the_cost_of_a_decision_does_not_grow_with_the_pool() -> None:
    shown: list[int] = []

    class Watched(replays._Replay):
        def _picture(self) -> Pool:
            picture = super()._picture()
            shown.append(len(picture.workers))
            return picture

    sessions = tuple(Arrival(at=100.0 + i, duration=50.5) for i in range(300))
    wanted = Demand(1000.0, sessions=sessions, joins=(Join(5.0),))
    Watched(wanted, limits(max_replicas=1000, min_idle=200, max_idle=400)).run()
    assert len(shown) > 600
    assert max(shown) <= 2
