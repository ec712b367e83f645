"""Each change of what a pool aims at is one event, in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from app.core.news import news
from app.model.agentpool import PoolSpec
from app.model.schedule import Schedule
from tests.core.test_rollout import pool_of
from tests.core.test_warmth import scheduled
from tests.core.world import EPOCH, World


def told(world: World) -> list[str]:
    """The reasons since the last call, without those of agents."""
    reasons = [reason for reason in world.events if not reason.startswith("Agent")]
    world.events.clear()
    return reasons


def test_ready_once_filled_and_again_after_trouble() -> None:
    world = World()
    world.settle()
    world.join()
    assert told(world) == ["Ready"]
    world.advance(600)
    assert told(world) == []
    world.refusal = "exceeded quota"
    world.request("s")
    world.advance(30)
    assert world.condition("Ready") == "False"
    world.refusal = ""
    world.advance(120)
    world.join()
    assert told(world) == ["Ready"]


def test_sessions_that_wait_at_the_maximum() -> None:
    world = pool_of(1, max_replicas=1, max_idle=1)
    told(world)
    world.request("a")
    assert told(world) == []
    world.request("b", "c")
    world.advance(60)
    assert told(world) == ["AtMaximum"]
    world.end("a")
    assert told(world) == []


def test_a_rollout_begins_and_ends() -> None:
    world = pool_of(2)
    told(world)
    world.retemplate("v2")
    assert "RolloutStarted" in told(world)
    for _ in range(4):
        world.join()
    assert world.versions == ["v2", "v2"]
    assert told(world) == ["RolloutDone"]


def test_schedules_begin_and_end() -> None:
    start = datetime.fromtimestamp(EPOCH + 1000 + 600, UTC)
    at = f"{start.minute} {start.hour} * * *"
    world = scheduled(Schedule(name="day", schedule=at, duration_second=3600, min_idle=3), max_idle=4)
    world.settle()
    world.join()
    told(world)
    world.advance(601)
    assert told(world) == ["SchedulesChanged"]
    world.advance(3600 + 300)
    assert "SchedulesChanged" in told(world)


def test_a_prediction_is_told_when_it_chooses_another_number() -> None:
    world = World(max_replicas=50, min_idle=1, max_idle=6)
    assert isinstance(world.spec, PoolSpec)
    limits = msgspec.structs.replace(world.spec.autoscaler, target_hit_rate=0.99)
    world.spec = msgspec.structs.replace(world.spec, autoscaler=limits)
    world.settle()
    world.join()
    assert "PredictionChanged" in told(world)
    world.advance(3600)
    assert "PredictionChanged" not in told(world)


def test_the_end_of_a_pool_is_told_once() -> None:
    world = pool_of(1)
    world.request("s")
    told(world)
    world.delete()
    world.advance(10)
    assert told(world) == ["Closing"]


@pytest.mark.parametrize("before", [{}, {"conditions": 1, "rollout": [], "warmth": "x"}, {"conditions": [{}, 3]}])
def test_a_status_of_somebody_else_is_no_news(before: dict[str, Any]) -> None:
    after = {"conditions": [], "rollout": {"templateHash": "a"}, "outdatedReplicas": 0, "pendingSessions": 0}
    assert list(news(before, after)) == []
