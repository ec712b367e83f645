"""Whatever spec is taken can be reconciled: a plan, pods and a status come of it, in bounded time. And all else can be
said in a status."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from app.core.fields import INT32_MAX
from app.core.podspec import encode_pod, revision, template_hash
from app.core.validation import DEEPEST, unknown_fields, validate, warnings
from app.kube.informer import UNREADABLE
from app.model.agentpool import AgentPool, PoolSpec
from tests.core.world import World
from tests.fuzz import documents
from tests.fuzz.mutations import texts

ANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
POOL = documents.pool()
STATUS_LIMIT = 16 * 1024


class Pool(World):
    """One whose plans are made and carried out but for the creation of more pods than a test needs."""

    def __init__(self, pool: AgentPool) -> None:
        super().__init__()
        name = pool.metadata.name
        meta = msgspec.structs.replace(self.pool.metadata, name=name, annotations=pool.metadata.annotations)
        self.pool = msgspec.structs.replace(pool, metadata=meta)
        self.spec = validate(name, pool.spec)

    def _create(self) -> None:
        if len(self.pods) < 3:
            super()._create()


def live(pool: AgentPool) -> Pool:
    """Its first minutes: some agents join, sessions come, the template changes, time passes, it is deleted."""
    world = Pool(pool)
    assert isinstance(world.spec, PoolSpec)
    for _ in range(3):
        world.step()
    if world.pods:
        world.agents.clear()
        first = next(iter(world.pods))
        world._phase(first, "Running")
        world.requested += 7
    for seconds in (1, 1000, INT32_MAX):
        world.now += seconds
        world.step()
    world.step()
    plan, spec = world.plan, world.spec
    assert plan
    status = msgspec.json.encode(world.pool.status)
    assert len(status) < STATUS_LIMIT
    if plan.version:
        whole = msgspec.structs.replace(spec, template=plan.version.template, template_hash=plan.version.target)
        body = encode_pod(world.pool, whole, config_map="velda-config").named("p-1")
        assert msgspec.json.decode(body)["metadata"]["name"] == "p-1"
        msgspec.json.encode(revision(world.pool, plan.version.template, plan.version.target))
    return world


def judge(text: str) -> Any:
    """The pool's spec or its mistakes, as the webhook and the controller come to them; None if it cannot be read."""
    try:
        pool = msgspec.json.decode(text, type=AgentPool)
    except UNREADABLE:
        return None
    spec = validate(pool.metadata.name, pool.spec)
    unknown_fields(pool.spec)
    if isinstance(spec, PoolSpec):
        warnings(spec)
        live(pool)
    else:
        assert spec
        world = Pool(pool)
        world.step()
        assert world.condition("Stalled") == "True"
        assert len(msgspec.json.encode(world.pool.status)) < STATUS_LIMIT
    return spec


@ANY
@given(text=texts(POOL, keys=documents.KEYS))
def test_any_pool_is_reconciled_or_refused(text: str) -> None:
    judge(text)


@pytest.mark.parametrize(
    "limits",
    [
        {"maxReplicas": INT32_MAX, "minReplicas": INT32_MAX, "minIdle": INT32_MAX, "maxIdle": INT32_MAX},
        {"defaultSlotsPerAgent": INT32_MAX},
        {"idleDecaySecond": INT32_MAX, "killUnknownAfterSecond": INT32_MAX, "joinTimeoutSecond": INT32_MAX},
        {"maxReplicas": 0, "minReplicas": 0, "minIdle": 0, "maxIdle": 0},
        {"targetHitRate": 5e-324},
        {"targetHitRate": 0.9999999999999999, "maxIdle": INT32_MAX, "defaultSlotsPerAgent": INT32_MAX},
    ],
)
def test_numbers_at_the_edges(limits: dict[str, float]) -> None:
    pool = documents.pool()
    pool["spec"]["autoscaler"] |= limits
    if limits.get("maxReplicas") == 0:
        del pool["spec"]["schedules"]
    assert isinstance(judge(msgspec.json.encode(pool).decode()), PoolSpec)


def test_a_template_deeper_than_any_pod_is_refused_and_not_hashed() -> None:
    """Hashing, encoding and comparing fail at depths that depend on who calls them: no pool may come so far."""
    pool = documents.pool()
    for depth, good in ((DEEPEST - 2, True), (DEEPEST - 1, False), (900, False)):
        deep: Any = 1
        for _ in range(depth):
            deep = [deep]
        pool["spec"]["template"]["spec"]["x"] = deep
        spec = validate("cpu-pool", pool["spec"])
        assert isinstance(spec, PoolSpec) == good
        if isinstance(spec, list):
            assert [error.field for error in spec] == ["spec.template"]
        else:
            assert spec.template_hash == template_hash(pool["spec"]["template"])
