"""A pool's status in sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.explain import explain
from app.model.agentpool import AgentPool
from app.model.meta import ObjectMeta
from tests.core.world import World

SPEC = {"autoscaler": {"maxReplicas": 5, "minIdle": 1, "maxIdle": 2}}


def told(world: World) -> str:
    return explain(AgentPool(metadata=world.pool.metadata, spec=SPEC, status=world.status))


@pytest.mark.parametrize("status", [None, {"observedGeneration": -1}])
def test_a_pool_that_nobody_has_looked_at(status: dict[str, int] | None) -> None:
    pool = AgentPool(metadata=ObjectMeta(name="p", namespace="n"), status=status)
    assert explain(pool) == "n/p: velda-apiserver has not looked at this pool yet; does it watch namespace n?"


def test_a_pool_that_grew() -> None:
    world = World()
    world.settle()
    world.join()
    first, second = told(world).splitlines()
    assert first == "n/p has 1 agent of at most 5 (1 idle); 1 slots are idle and 0 sessions wait."
    assert "scaling asked for 1 agent (minIdle): 0 idle slots are below minIdle 1." in second


def test_a_pool_that_waits_for_the_decay_says_when_it_looks_again() -> None:
    world = World()
    world.settle()
    world.join()
    world.request("s")
    world.end("s")
    world.join()
    assert "left it as it is (idleDecaySecond): 2 idle slots above minIdle 1" in told(world)
    assert "It looks again at 2027-" in told(world)


def test_a_pool_in_trouble() -> None:
    world = World()
    world.refusal = "exceeded quota"
    world.settle()
    assert "Agents do not come (quota): Forbidden: exceeded quota." in told(world)
    assert "(backOff)" in told(world)


def test_a_changed_spec_is_told() -> None:
    world = World()
    world.settle()
    meta = ObjectMeta(name="p", namespace="n", generation=9)
    assert "Its spec has changed since" in explain(AgentPool(metadata=meta, spec=SPEC, status=world.status))


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["prediction", "failure", "x"]), inner),
)
FIELDS = ["lastDecision", "rollout", "warmth", "lastError", "replicas", "idleReplicas", "outdatedReplicas"]


@given(st.dictionaries(st.sampled_from(FIELDS), json, min_size=1))
def test_a_status_may_hold_anything(status: dict[str, object]) -> None:
    assert explain(AgentPool(status=status)).startswith("/ has ")
