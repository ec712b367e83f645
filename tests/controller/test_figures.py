"""What is measured of a pool follows what is decided and what the API server answers, whatever was written when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from app.controller.creations import Creations
from app.controller.parts import Parts, PoolState, Subject
from app.controller.pools import _measure
from app.controller.removals import Removals
from app.core import breaker as breakers
from app.core.reconcile import Memory, Plan
from app.core.scaling import Removal
from app.core.workers import State, Worker
from app.kube.errors import ApiError, ApiUnreachable
from app.model.agentpool import AgentPool
from app.model.meta import NamespacedName, ObjectMeta
from app.obs import metrics
from app.obs.pools import POOLS, PoolFigures

KEY = NamespacedName("n", "p")


class Nobody:
    """Takes every call and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: None


class Fake:
    """Stands for all the parts."""

    def __getattr__(self, name: str) -> Any:
        return (lambda *args: None) if name == "trace" else Nobody()


@pytest.fixture
def figures() -> Iterator[PoolFigures]:
    yield POOLS.begin(KEY)
    POOLS.forget(KEY)


@pytest.fixture
def subject() -> Subject:
    pool = AgentPool(metadata=ObjectMeta(name="p", namespace="n", resource_version="7"), status={"replicas": 3})
    return Subject(KEY, pool, PoolState("u", Memory(started_at=0.0)))


def plan(**fields: Any) -> Plan:
    return Plan(memory=Memory(started_at=0.0), breaker=breakers.CLOSED, **fields)


def test_a_new_leader_tells_the_status_that_it_finds(figures: PoolFigures, subject: Subject) -> None:
    _measure(subject, plan())
    assert figures.status["replicas"] == 3


def test_a_status_that_was_never_written_is_told_no_longer_than_it_holds(
    figures: PoolFigures, subject: Subject
) -> None:
    subject.state.status_sent = ("7", {"replicas": 4})
    _measure(subject, plan(status={"replicas": 5}))
    assert figures.status["replicas"] == 5
    _measure(subject, plan())
    assert figures.status["replicas"] == 4


def test_each_agent_that_joins_is_one_observation(figures: PoolFigures, subject: Subject) -> None:
    def joined() -> float:
        return metrics.REGISTRY.get_sample_value("velda_time_to_idle_seconds_count") or 0.0

    before = joined()
    _measure(subject, plan(join_seconds=[1.5, 40.0]))
    assert joined() == before + 2


def answer(error: ApiError | None) -> asyncio.Future[ApiError | None]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(error)
    return future


async def test_creations_are_counted_by_their_answer(figures: PoolFigures, subject: Subject) -> None:
    creations = Creations(cast(Parts, Fake()))
    for error in (None, None, ApiError(403, "Forbidden", "exceeded quota"), ApiUnreachable("no answer")):
        creations._answered(subject, "a", answer(error))
    assert (figures.created, figures.refused) == (2, 1)


async def test_only_a_deletion_that_is_carried_out_counts(figures: PoolFigures, subject: Subject) -> None:
    removals, removal = Removals(cast(Parts, Fake())), Removal(Worker("a", "u", State.IDLE, 1), "idle")
    for error in (None, ApiError(403, "Forbidden", "no")):
        removals._answered(subject, removal, answer(error))
    assert figures.deleted == 1
