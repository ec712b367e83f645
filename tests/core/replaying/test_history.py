"""Records made into lives, where files overlap, processes change and words are missing too."""

from __future__ import annotations

import math

import pytest

from app.core.replaying.demand import Arrival, Demand, Join, demand
from app.core.replaying.history import TraceError, history
from app.core.replaying.recorded import recorded
from app.core.trace import (
    VERSION,
    AgentAsked,
    AgentCreated,
    AgentJoined,
    AgentLost,
    AgentRemoved,
    Header,
    LimitsSet,
    Living,
    Record,
    SessionCancelled,
    SessionEnded,
    SessionRequested,
    SessionReturned,
    SessionStarted,
)
from app.model.agentpool import Autoscaler
from app.model.meta import NamespacedName

POOL = NamespacedName("n", "p")
T = 1_800_000_000.0
LIMITS = Autoscaler(max_replicas=5, min_idle=1, max_idle=2)
MORE = Autoscaler(max_replicas=5, min_idle=2, max_idle=4, default_slots_per_agent=2)
START: list[Record] = [Header(T, POOL, VERSION), LimitsSet(T, LIMITS)]

ONE: list[Record] = [
    *START,
    AgentAsked(T, "a"),
    AgentCreated(T + 1, "a"),
    AgentJoined(T + 10, "a", slots=1),
    SessionRequested(T + 20, "s"),
    SessionStarted(T + 20, "s", agent="a"),
    SessionRequested(T + 21, "late", priority=3),
    AgentAsked(T + 22, "b"),
    AgentJoined(T + 42, "b", slots=4),
    SessionStarted(T + 42, "late", agent="b"),
    SessionRequested(T + 50, "gone"),
    SessionCancelled(T + 53, "gone"),
    SessionEnded(T + 60, "s"),
    AgentRemoved(T + 80, "a"),
    SessionRequested(T + 100, "still"),
]
"""Two agents; one session at once, one after 21 s, one cancelled after 3 s, one that waits at the end, after 100 s."""


def test_demand_of_a_trace() -> None:
    assert demand(history(ONE)) == Demand(
        seconds=100.0,
        sessions=(
            Arrival(at=20.0, duration=40.0),
            Arrival(at=21.0, priority=3),
            Arrival(at=50.0, duration=40.0, patience=3.0),
            Arrival(at=100.0, duration=40.0),
        ),
        joins=(Join(10.0), Join(20.0, slots=4)),
    )


def test_what_a_trace_came_to() -> None:
    result = recorded(history(ONE))
    # a: pending 0-10, idle 10-20, running 20-60, idle 60-80. b: pending 22-42, running from 42 with 3 slots free.
    assert result.pending_agent_hours * 3600 == pytest.approx(30)
    assert result.idle_agent_hours * 3600 == pytest.approx(30)
    assert result.running_agent_hours * 3600 == pytest.approx(40 + 58)
    assert result.idle_slot_hours * 3600 == pytest.approx(30 + 3 * 58)
    assert (result.agents_created, result.agents_removed, result.peak_agents) == (2, 1, 2)
    assert (result.sessions, result.started, result.cancelled, result.queued) == (4, 2, 1, 1)
    assert result.waits.total == pytest.approx(0 + 21 + 3 + 0)
    assert result.waits.max == 21
    assert result.hit_rate == pytest.approx(1 / 3)  # the one that waits for 0 s is not decided
    assert sum(point.agents for point in result.series) * 100 / 240 == pytest.approx(80 + 78)


@pytest.mark.parametrize("cut", range(2, len(ONE)))
def test_a_trace_in_two_files_says_the_same(cut: int) -> None:
    """The second begins with what lives by then."""
    living = Living()
    for record in ONE[:cut]:
        living.apply(record)
    told = history([*ONE[:cut], Header(ONE[cut].at, POOL, VERSION), *living.records(), *ONE[cut:]])
    assert demand(told) == demand(history(ONE))
    assert recorded(told) == recorded(history(ONE))


def test_a_start_that_failed_is_no_start() -> None:
    told = history(
        [
            *START,
            SessionRequested(T + 1, "s"),
            SessionStarted(T + 1, "s", agent="a"),
            SessionReturned(T + 5, "s"),
            SessionStarted(T + 9, "s", agent="b"),
            SessionEnded(T + 19, "s"),
        ]
    )
    assert demand(told).sessions == (Arrival(at=1.0, duration=10.0),)
    assert recorded(told).waits.total == 8


def test_an_id_may_be_used_again() -> None:
    told = history(
        [
            *START,
            SessionRequested(T, "s"),
            SessionStarted(T, "s", agent="a"),
            SessionEnded(T + 5, "s"),
            SessionRequested(T + 6, "s"),
            SessionStarted(T + 7, "s", agent="a"),
            SessionEnded(T + 9, "s"),
        ]
    )
    assert [arrival.duration for arrival in demand(told).sessions] == [5, 2]


def test_what_was_there_before_the_beginning() -> None:
    """A rotated file begins with what lives; a trace of which the beginning is lost does not even do that."""
    told = history(
        [
            Header(T, POOL, VERSION),
            LimitsSet(T - 500, LIMITS),
            AgentAsked(T - 100, "a"),
            AgentJoined(T - 90, "a", slots=1),
            AgentAsked(T - 5, "pending"),
            SessionRequested(T - 80, "s"),
            SessionStarted(T - 70, "s", agent="a"),
            SessionRequested(T - 3, "queued"),
            AgentJoined(T + 7, "pending", slots=1),
            SessionStarted(T + 7, "queued", agent="pending"),
            SessionEnded(T + 10, "s"),
            SessionEnded(T + 20, "unheard-of"),
            AgentRemoved(T + 40, "never-seen"),
        ]
    )
    assert demand(told) == Demand(
        seconds=40.0,
        sessions=(Arrival(at=0.0, duration=10.0, carried=True), Arrival(at=-3.0), Arrival(0.0, 20.0, carried=True)),
        present=(Join(0.0), Join(7.0), Join(0.0)),
    )
    result = recorded(told)
    assert (result.sessions, result.waits.total, result.agents_created) == (1, 10, 0)
    assert result.pending_agent_hours * 3600 == pytest.approx(7)
    assert result.running_agent_hours * 3600 == pytest.approx(10 + 33)


def test_a_process_that_goes_on_with_the_trace() -> None:
    """What it does not name any more has gone meanwhile; what it names lived on."""
    told = history(
        [
            *START,
            AgentAsked(T, "stays"),
            AgentJoined(T + 1, "stays", slots=1),
            AgentAsked(T, "goes"),
            AgentJoined(T + 1, "goes", slots=1),
            SessionRequested(T + 2, "stays"),
            SessionStarted(T + 2, "stays", agent="stays"),
            SessionRequested(T + 2, "goes"),
            SessionStarted(T + 2, "goes", agent="goes"),
            Header(T + 50, POOL, VERSION),
            LimitsSet(T + 50, LIMITS),
            AgentJoined(T + 55, "stays", slots=1),
            SessionStarted(T + 55, "stays", agent="stays"),
            SessionEnded(T + 60, "stays"),
        ]
    )
    assert demand(told).sessions == (Arrival(at=2.0, duration=58.0), Arrival(at=2.0, duration=48.0))
    assert told.agents["goes"].gone == 50.0
    assert told.agents["stays"].gone is None


def test_a_lost_agent_is_only_size_until_it_is_back() -> None:
    told = history(
        [
            *START,
            AgentAsked(T, "a"),
            AgentJoined(T + 10, "a", slots=1),
            AgentLost(T + 20, "a"),
            AgentLost(T + 21, "a"),
            AgentJoined(T + 50, "a", slots=1),
            AgentRemoved(T + 60, "a"),
        ]
    )
    result = recorded(told)
    assert result.idle_agent_hours * 3600 == pytest.approx(10 + 10)
    assert sum(point.agents for point in result.series) * 60 / 240 == pytest.approx(60)
    assert result.agents_removed == 1


def test_slots_that_follow_the_default_are_told_from_an_agents_own() -> None:
    told = history(
        [
            *START,
            AgentAsked(T, "a"),
            AgentJoined(T + 1, "a", slots=1),
            LimitsSet(T + 2, MORE),
            AgentAsked(T + 3, "b"),
            AgentJoined(T + 4, "b", slots=2),
            AgentAsked(T + 5, "c"),
            AgentJoined(T + 6, "c", slots=1),
        ]
    )
    assert [join.slots for join in demand(told).joins] == [None, None, 1]
    assert told.limits == [(0.0, LIMITS), (2.0, MORE)]
    assert [told.default_slots(at) for at in (0.0, 1.9, 2.0, 99.0)] == [1, 1, 2, 2]
    assert recorded(told).idle_slot_hours * 3600 == pytest.approx(5 * 1 + 2 * 2)


def test_joins_beyond_the_recorded_ones() -> None:
    assert Demand(1.0, joins=(Join(1.0, 4), Join(3.0, 4), Join(50.0))).later_join == Join(3.0, 4)
    assert Demand(1.0).later_join.delay > 0


def test_a_session_that_nothing_is_known_of_but_its_request() -> None:
    assert demand(history([*START, SessionRequested(T + 1, "s")])).sessions == (
        Arrival(at=1.0, duration=math.inf, patience=math.inf),
    )


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no header"),
        ([SessionEnded(T, "s")], "no header"),
        ([Header(T, POOL, VERSION)], "does not say which limits"),
        ([*START, Header(T, NamespacedName("n", "q"), VERSION)], "a trace of n/q among those of n/p"),
    ],
)
def test_what_is_no_trace_of_one_pool(records: list[Record], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        history(records)
