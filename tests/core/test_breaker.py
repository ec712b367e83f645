"""Broken pods: seen, told, replaced with back-off, and never more than one probe until one has joined."""

from __future__ import annotations

import pytest

from app.core.breaker import CLOSED, FORGET_AFTER, created, failed, refreshed, retry_now
from app.core.diagnosis import Cause, Problem
from app.core.workers import PROBLEM_GRACE
from tests.core.world import World

IMAGE = Problem(Cause.IMAGE, "ImagePullBackOff", "no such image")
QUOTA = Problem(Cause.QUOTA, "Forbidden", "exceeded quota")


def test_delays_double_to_a_minute_and_failures_under_way_together_count_once() -> None:
    breaker, now, delays = CLOSED, 0.0, []
    for _ in range(9):
        breaker = failed(breaker, QUOTA, template_hash="v1", now=now, wall=0, jitter=1.0)
        breaker = failed(breaker, QUOTA, template_hash="v1", now=now, wall=0, jitter=1.0)
        until = breaker.blocked_until(now)
        assert until is not None
        delays.append(until - now)
        now = until
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_refused_creation_is_proved_by_the_next_that_is_taken() -> None:
    breaker = failed(CLOSED, QUOTA, template_hash="v1", now=0, wall=5, jitter=0)
    assert (breaker.problem, breaker.problem_time) == (QUOTA, 5)
    assert breaker.room(asked=0, unproved=7) == 1
    breaker = created(breaker)
    assert breaker.problem is None
    assert breaker.room(asked=1, unproved=7) == 1
    assert created(breaker).room(asked=0, unproved=7) == 4


def test_a_pod_that_does_not_start_is_proved_only_by_one_that_joins() -> None:
    breaker = failed(CLOSED, IMAGE, template_hash="v1", now=0, wall=0, jitter=0)
    assert created(breaker).room(asked=0, unproved=1) == 0
    assert refreshed(breaker, template_hash="v1", joined={"v0"}, probing=True, now=1).problem == IMAGE
    assert refreshed(breaker, template_hash="v1", joined={"v1"}, probing=True, now=1) == CLOSED.__class__("v1")


def test_silence_clears_a_failure_unless_a_probe_is_still_under_way() -> None:
    breaker = failed(CLOSED, IMAGE, template_hash="v1", now=0, wall=0, jitter=0)
    later = FORGET_AFTER + 2
    assert refreshed(breaker, template_hash="v1", joined=(), probing=True, now=later).problem == IMAGE
    assert refreshed(breaker, template_hash="v1", joined=(), probing=False, now=later).problem is None


def test_causes_and_templates_are_kept_apart() -> None:
    breaker = failed(CLOSED, IMAGE, template_hash="v1", now=0, wall=0, jitter=1)
    breaker = failed(breaker, QUOTA, template_hash="v1", now=0.5, wall=0, jitter=1)
    assert len(breaker.circuits) == 2
    assert breaker.problem == QUOTA
    assert created(breaker).problem == IMAGE
    assert retry_now(breaker).blocked_until(0.6) is None
    assert failed(breaker, QUOTA, template_hash="v2", now=1, wall=0, jitter=1).circuits[0].failures == 1


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CrashLoopBackOff", "CreateContainerConfigError"])
def test_broken_pods_are_replaced_by_one_probe_at_a_time_until_one_joins(reason: str) -> None:
    world = World(min_idle=5, max_idle=5, max_replicas=9)
    world.settle()
    for name in list(world.pods):
        world.wait_for(name, reason)
    world.advance(PROBLEM_GRACE - 1)
    assert len(world.pods) == 5
    assert reason in next(c["message"] for c in world.status["conditions"] if c["type"] == "CapacityReady")
    world.advance(1)
    assert len(world.pods) == 0
    assert world.status["lastError"]["message"].startswith(reason)
    world.advance(5)
    for _ in range(300):
        assert len(world.pods) <= 1
        for name in list(world.pods):
            world.wait_for(name, reason)
        world.advance(1)
    assert len(world.created) <= 5 + 8
    while not world.pods:
        world.advance(1)
    world.join()
    assert len(world.pods) == 5
    assert "lastError" not in world.status


def test_a_pod_that_gets_over_its_trouble_is_kept() -> None:
    world = World()
    world.settle()
    (name,) = world.pods
    world.wait_for(name, "ErrImagePull")
    world.advance(PROBLEM_GRACE - 5)
    world.join(name)
    world.advance(600)
    assert list(world.pods) == [name]


def test_an_agent_that_never_joins_is_replaced_when_its_time_is_over() -> None:
    world = World(join_timeout_second=100)
    world.settle()
    (name,) = world.pods
    world.advance(99)
    assert list(world.pods) == [name]
    world.advance(2)
    assert name not in world.pods
    assert world.status["lastError"]["cause"] == "never joined"
    world.advance(2)
    assert len(world.pods) == 1


@pytest.mark.parametrize("reason", ["Unschedulable", "SchedulingGated"])
def test_pods_that_cannot_be_placed_are_held_and_not_churned(reason: str) -> None:
    world = World(min_idle=2, max_idle=2, join_timeout_second=100)
    world.settle()
    pods = list(world.pods)
    for name in pods:
        world.hold(name, reason)
    world.advance(3600)
    assert list(world.pods) == pods
    assert world.events.count("AgentHeld") == 2
    assert world.condition("Stalled") == "True"
    assert world.plan
    assert reason in world.plan.ailing
    world.join(*pods)
    assert world.plan.ailing == ""
    assert world.condition("Stalled") == "False"
    assert world.condition("Ready") == "True"


def test_a_crash_before_joining_is_told_with_its_exit_code() -> None:
    world = World()
    world.settle()
    (name,) = world.pods
    world.finish(name, "Evicted")
    assert world.status["lastError"]["message"] == "Evicted"
    assert "AgentLost" in world.events
