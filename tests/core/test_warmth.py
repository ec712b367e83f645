"""Schedules and predicted warmth as a pool lives them: what holds when, and what its status says."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from app.core.validation import validate
from app.model.agentpool import PoolSpec
from app.model.schedule import Schedule
from tests.core.world import EPOCH, World

TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "agent", "image": "agent"}]}}


def scheduled(*schedules: Schedule, **limits: int) -> World:
    world = World(**limits)
    assert isinstance(world.spec, PoolSpec)
    world.spec = msgspec.structs.replace(world.spec, schedules=schedules)
    return world


def test_a_schedule_raises_min_idle_and_then_lets_it_fall_again() -> None:
    start = datetime.fromtimestamp(EPOCH + 1000 + 600, UTC)
    at = f"{start.minute} {start.hour} * * *"
    world = scheduled(Schedule(name="day", schedule=at, duration_second=3600, min_idle=3), max_idle=4)
    world.settle()
    world.join()
    assert world.counts == (0, 1, 0)
    assert world.status["warmth"] == {"activeSchedules": [], "minIdle": 1, "minReplicas": 0}
    world.advance(601)
    world.join()
    assert world.counts == (0, 3, 0)
    assert world.status["warmth"]["activeSchedules"] == ["day"]
    world.advance(3600 + 300)
    assert world.counts == (0, 1, 0)


def test_a_schedule_never_lifts_the_least_size_above_the_greatest() -> None:
    world = scheduled(Schedule(name="all", schedule="* * * * *", duration_second=3600, min_replicas=99))
    world.settle()
    world.join()
    assert world.counts == (0, 5, 0)


def test_a_hit_rate_keeps_more_ready_under_load_within_bounds_and_says_why() -> None:
    world = World(max_replicas=50, min_idle=1, max_idle=6, idle_decay_second=5)
    assert isinstance(world.spec, PoolSpec)
    limits = msgspec.structs.replace(world.spec.autoscaler, target_hit_rate=0.99)
    world.spec = msgspec.structs.replace(world.spec, autoscaler=limits)
    world.settle()
    world.join()
    assert world.status["warmth"]["prediction"]["bound"] == "noArrivals"
    for number in range(60):
        world.request(f"s{number}")
        world.advance(5)
        world.join()
        world.end(f"s{number}")
        world.advance(5)
    told = world.status["warmth"]
    assert 1 < told["minIdle"] <= 6
    assert told["prediction"]["arrivalsPerMinute"] > 1
    assert "find a slot at once" in told["prediction"]["message"]
    world.restart()
    world.return_from_restart(*world.lost_agents)
    assert world.status["warmth"]["minIdle"] > 1
    world.advance(6 * 3600)
    assert world.counts == (0, 1, 0)


def test_schedules_and_the_hit_rate_are_validated_with_the_rest() -> None:
    limits = {"maxReplicas": 3, "minIdle": 1, "maxIdle": 2, "targetHitRate": 1}
    spec = {"autoscaler": limits, "template": TEMPLATE, "schedules": [{"name": "x", "schedule": "0 0 30 2 *"}]}
    errors = validate("p", spec)
    assert isinstance(errors, list)
    fields = {error.field for error in errors}
    assert {"spec.autoscaler.targetHitRate", "spec.schedules[0].durationSecond", "spec.schedules[0].schedule"} <= fields
    good = {**spec, "schedules": [{"name": "x", "schedule": "0 8 * * 1-5", "durationSecond": 60, "minIdle": 2}]}
    limits["targetHitRate"] = 0.99  # type: ignore[assignment]
    parsed = validate("p", good)
    assert isinstance(parsed, PoolSpec)
    assert parsed.autoscaler.target_hit_rate == 0.99
    assert parsed.schedules[0].min_idle == 2
