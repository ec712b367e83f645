"""The 15 scenarios of the autoscaling rules, on the pure core with a virtual clock.

P in the table: maxReplicas 5, minIdle 1, maxIdle 2, slots 1, idleDecaySecond 60 unless said. ``counts`` is
(pending, idle, running) agents.
"""

from __future__ import annotations

from tests.core.world import World


def running(sessions: int, **limits: int) -> World:
    """A pool whose agents all joined, with that many sessions running."""
    world = World(**limits)
    world.settle()
    world.join()
    for number in range(sessions):
        world.request(f"s{number}")
        world.join()
    return world


def test_01_a_new_pool_asks_for_one_agent() -> None:
    world = World()
    world.settle()
    assert world.counts == (1, 0, 0)


def test_02_the_agent_joins_and_nothing_is_created() -> None:
    world = World()
    world.settle()
    world.join()
    assert world.counts == (0, 1, 0)
    assert len(world.created) == 1


def test_03_a_session_takes_the_idle_agent_and_one_more_is_asked_for() -> None:
    world = running(0)
    world.request("s")
    assert world.counts == (1, 0, 1)


def test_04_a_spare_idle_agent_goes_after_the_decay_and_then_none() -> None:
    world = running(0)
    world.request("s")
    world.end("s")
    world.join()
    assert world.counts == (0, 2, 0)
    world.advance(59)
    assert world.counts == (0, 2, 0)
    world.advance(1)
    assert world.counts == (0, 1, 0)
    world.advance(3600)
    assert world.counts == (0, 1, 0)


def test_05_idle_above_the_maximum_goes_at_once_and_the_rest_slowly() -> None:
    world = running(3)
    assert world.counts == (0, 1, 3)
    world.end("s0", "s1", "s2")
    assert world.counts == (0, 2, 0)
    world.advance(60)
    assert world.counts == (0, 1, 0)


def test_06_at_the_maximum_sessions_queue_and_are_served_by_priority_then_arrival() -> None:
    world = running(5)
    assert world.counts == (0, 0, 5)
    created = len(world.created)
    world.request("late")
    world.request("urgent", priority=1)
    assert len(world.created) == created
    world.end("s0")
    assert world.where("urgent") is not None
    assert world.where("late") is None
    world.end("s1")
    assert world.where("late") is not None
    assert len(world.created) == created


def test_07_a_cancelled_queued_session_leaves_no_extra_agent() -> None:
    world = running(0)
    world.request("first")
    world.request("second")
    world.cancel("second")
    world.join()
    world.advance(3600)
    assert world.counts == (0, 1, 1)


def test_08_idleness_is_counted_in_slots_and_the_maximum_is_raised() -> None:
    world = World(default_slots_per_agent=4, min_idle=3, max_idle=3)
    world.settle()
    assert world.counts == (1, 0, 0)
    world.join()
    world.advance(3600)
    assert world.counts == (0, 1, 0)


def test_09_a_partly_used_agent_counts_its_free_slots() -> None:
    world = World(default_slots_per_agent=4, min_idle=3, max_idle=3)
    world.settle()
    world.join()
    world.request("a", "b")
    assert world.counts == (1, 0, 1)


def three_idle() -> World:
    world = running(0, min_replicas=3, max_idle=3)
    assert world.counts == (0, 3, 0)
    return world


def test_10_after_a_restart_nothing_is_done_while_agents_may_return() -> None:
    world = three_idle()
    created = len(world.created)
    world.restart()
    world.advance(10)
    assert len(world.created) == created
    assert world.deleted == []


def test_11_the_one_that_never_returns_is_deleted_when_its_time_is_over() -> None:
    world = three_idle()
    world.edit(min_replicas=0)
    world.restart()
    first, second, third = list(world.pods)
    world.advance(2)
    world.return_from_restart(first, second)
    world.advance(297)
    assert world.status["replicas"] == 3
    assert world.deleted == []
    world.advance(1)
    assert world.deleted == [third]
    assert world.status["replicas"] == 2


def test_12_a_refused_creation_is_shown_and_not_hammered() -> None:
    world = World(min_idle=3, max_idle=3)
    world.refusal = "exceeded quota"
    world.settle()
    world.advance(5)
    assert world.status["lastError"]["message"] == "Forbidden: exceeded quota"
    assert world.condition("Ready") == "False"
    assert world.attempts <= 3 + 4
    world.refusal = ""
    world.advance(5)
    assert len(world.created) == 3


def test_13_the_minimum_size_is_kept() -> None:
    world = running(0, min_replicas=3)
    world.advance(3600)
    assert world.counts == (0, 3, 0)
    assert world.deleted == []


def test_14_a_lowered_maximum_takes_the_idle_ones_and_waits_for_the_running_ones() -> None:
    world = running(6, max_replicas=10, min_idle=4, max_idle=4)
    assert world.counts == (0, 4, 6)
    world.edit(max_replicas=2, min_idle=1, max_idle=2)
    assert world.counts == (0, 0, 6)
    world.end("s0", "s1", "s2")
    assert world.counts == (0, 0, 3)
    world.end("s3", "s4")
    assert world.counts == (0, 1, 1)


def test_15_a_deleted_pool_ends_its_sessions_and_the_finalizer_goes_last() -> None:
    world = running(2)
    world.delete()
    assert world.closed
    assert world.counts == (0, 0, 2)
    assert world.pool.metadata.finalizers
    world.end("s0")
    assert world.counts == (0, 0, 1)
    world.advance(30)
    assert world.counts == (0, 0, 0)
    assert world.pool.metadata.finalizers == ()


def test_an_adopted_agent_may_run_sessions_and_has_its_time_to_join() -> None:
    world = running(0, min_replicas=0)
    world.advance(1000)
    world.orphan("orphan", "Running")
    world.edit(min_idle=0, max_idle=0)
    world.advance(299)
    assert "orphan" not in world.deleted
    world.advance(2)
    assert "orphan" in world.deleted


def test_an_adopted_agent_that_joins_counts_like_any_other() -> None:
    world = running(0)
    world.orphan("orphan", "Running")
    world.join("orphan")
    assert world.counts == (0, 2, 0)


def test_an_adopted_pod_that_never_ran_is_pending() -> None:
    world = running(0)
    world.edit(max_replicas=1)
    world.orphan("orphan", "Pending")
    assert world.deleted == ["orphan"]
