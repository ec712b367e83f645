"""The autoscaling rules where the 15 scenarios are silent."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.breaker import Breaker, Circuit
from app.core.diagnosis import Cause, Problem
from app.core.scaling import Pool, decide
from app.core.workers import LIVE, State, Worker
from app.model.agentpool import Autoscaler
from tests.core.world import World


def test_terminating_pods_hold_their_place_under_the_maximum() -> None:
    limits = Autoscaler(max_replicas=2, min_idle=2, max_idle=2)
    workers = [Worker(name=name, uid=name, state=State.TERMINATING, slots=1) for name in "ab"]
    assert decide(Pool(limits=limits, workers=workers), now=0).create == 0
    assert decide(Pool(limits=limits, workers=workers[:1]), now=0).create == 1


def test_creations_wait_15_s_for_unknown_agents_then_count_them_as_running() -> None:
    world = World(min_idle=2, max_idle=2)
    world.settle()
    world.join()
    world.restart()
    world.advance(14)
    assert len(world.created) == 2
    world.advance(1)
    assert len(world.created) == 4


def test_creations_wait_no_longer_than_until_all_agents_of_before_are_back() -> None:
    world = World(max_replicas=10, min_idle=2, max_idle=2)
    world.settle()
    world.join()
    first, second = world.pods
    world.restart()
    world.request("s")
    world.advance(3)
    world.return_from_restart(first)
    assert len(world.created) == 2
    world.return_from_restart(second)
    assert len(world.created) == 3


def test_nor_for_one_whose_pod_has_ended() -> None:
    world = World(max_replicas=10, min_idle=2, max_idle=2)
    world.settle()
    world.join()
    first, second = world.pods
    world.restart()
    world.return_from_restart(first)
    world.finish(second)
    world.advance(5)  # the back-off of what had no success yet
    assert len(world.created) == 3


def test_no_idle_agent_is_removed_while_another_is_unknown() -> None:
    world = World(min_replicas=4, min_idle=0, max_idle=4)
    world.settle()
    world.join()
    world.restart()
    first, second, third, _ = list(world.pods)
    world.return_from_restart(first, second, third)
    world.edit(min_replicas=0, max_idle=1)
    world.advance(100)
    assert world.deleted == []
    world.advance(300)
    assert len(world.deleted) >= 3


def test_a_lost_agent_counts_as_size_and_is_deleted_when_its_time_is_over() -> None:
    world = World(max_replicas=1, min_idle=1, max_idle=1)
    world.settle()
    world.join()
    (name,) = world.pods
    world.lose(name)
    world.advance(299)
    assert list(world.pods) == [name]
    world.advance(1)
    assert name not in world.pods
    assert world.counts == (1, 0, 0)


def test_a_lost_agent_that_returns_is_idle_again() -> None:
    world = World(max_replicas=1)
    world.settle()
    world.join()
    (name,) = world.pods
    world.lose(name)
    assert world.status["unknownReplicas"] == 1
    world.rejoin(name)
    world.advance(1000)
    assert list(world.pods) == [name]
    assert world.status["unknownReplicas"] == 0


def test_the_decay_timer_is_kept_while_true_and_dropped_when_not() -> None:
    world = World(min_replicas=0)
    world.settle()
    world.request("s")
    world.join()
    world.end("s")
    world.advance(50)
    world.request("t")
    world.end("t")
    world.advance(59)
    assert world.counts[1] == 2
    world.advance(1)
    assert world.counts[1] == 1


def test_pods_that_end_before_they_join_are_replaced_with_back_off() -> None:
    world = World()
    world.settle()
    for _ in range(1200):
        for name in list(world.pods):
            world.finish(name, "Evicted")
        world.advance(0.1)
    assert 5 <= len(world.created) <= 9


def test_a_slot_report_larger_than_the_default_does_not_make_the_pool_flap() -> None:
    world = World(min_idle=3, max_idle=3, max_replicas=10)
    world.settle()
    world.join(slots=8)
    world.advance(3600)
    assert len(world.created) == 3
    world.advance(3600)
    assert len(world.created) == 3
    assert world.counts[1] == 1


def test_after_an_error_one_probe_then_two_then_all() -> None:
    limits = Autoscaler(max_replicas=50, min_idle=20, max_idle=20)
    quota = Circuit(problem=Problem(Cause.QUOTA, "Forbidden"), failures=1, since=9, until=10, last=9, time=0)
    recent = Breaker("", (quota,))
    assert decide(Pool(limits=limits, workers=(), breaker=recent), now=9.5).create == 0
    assert decide(Pool(limits=limits, workers=(), breaker=recent), now=9.5).next_at == 10
    assert decide(Pool(limits=limits, workers=(), breaker=recent), now=10).create == 1
    assert decide(Pool(limits=limits, workers=(), asked=1, breaker=recent), now=10).create == 0
    assert decide(Pool(limits=limits, workers=()), now=10).create == 20


workers = st.lists(
    st.builds(
        Worker,
        name=st.uuids().map(str),
        uid=st.uuids().map(str),
        state=st.sampled_from(State),
        slots=st.integers(1, 5),
        since=st.floats(0, 1000),
        created=st.floats(0, 1000),
        node=st.sampled_from(["", "n1", "n2"]),
    ).map(lambda worker: msgspec.structs.replace(worker, sessions=int(worker.state is State.RUNNING))),
    max_size=20,
)


@st.composite
def limits(draw: st.DrawFn) -> Autoscaler:
    low, idle = draw(st.integers(0, 5)), draw(st.integers(0, 8))
    return Autoscaler(
        min_replicas=low,
        max_replicas=low + draw(st.integers(0, 10)),
        min_idle=idle,
        max_idle=idle + draw(st.integers(0, 5)),
        idle_decay_second=draw(st.integers(0, 100)),
        default_slots_per_agent=draw(st.integers(1, 4)),
    )


@given(limits(), workers, st.integers(0, 10), st.integers(0, 5), st.floats(0, 2000))
def test_what_holds_for_every_decision(
    limits: Autoscaler, workers: list[Worker], pending: int, asked: int, now: float
) -> None:
    pool = Pool(limits=limits, workers=workers, asked=asked, pending_sessions=pending)
    decision = decide(pool, now=now)
    live = sum(worker.state in LIVE for worker in workers) + asked
    terminating = pool.count(State.TERMINATING)
    if decision.create:
        assert live + terminating + decision.create <= limits.max_replicas
    for removal in decision.removals:
        assert removal.worker.state not in (State.RUNNING, State.TERMINATING)
        assert removal.worker.sessions == 0 or removal.worker.state in (State.UNKNOWN, State.LOST)
    assert len({removal.worker.uid for removal in decision.removals}) == len(decision.removals)
    assert decide(pool, now=now) == decision
    scaled = [r.worker for r in decision.removals if r.worker.state in (State.IDLE, State.PENDING)]
    if scaled and pool.size <= limits.max_replicas:
        assert pool.idle - sum(worker.free for worker in scaled) >= limits.min_idle
        assert pool.size - len(scaled) >= limits.min_replicas
        assert not decision.create


@pytest.mark.parametrize("state", [State.UNKNOWN, State.LOST])
def test_an_agent_with_no_stream_is_never_chosen_by_scaling(state: State) -> None:
    limits = Autoscaler(max_replicas=1, min_idle=0, max_idle=0)
    workers = [Worker(name=name, uid=name, state=state, slots=1, since=0) for name in "abc"]
    assert decide(Pool(limits=limits, workers=workers), now=100).removals == ()
