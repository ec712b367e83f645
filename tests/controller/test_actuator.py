"""Calls are repeated until their answer is definite, and a repeated one does no harm."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import structlog

from app.controller import actuator as module
from app.controller.actuator import IN_FLIGHT, Actuator
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError, ApiUnreachable
from app.model.meta import NamespacedName, ObjectMeta
from app.model.pod import Pod
from tests.support.cluster import Cluster

POOL = NamespacedName("ns", "pool")
POD = NamespacedName("ns", "pool-1")
LOST = ApiUnreachable("no answer in time")
TAKEN = ApiError(409, "AlreadyExists", 'pods "pool-1" already exists')
TIMEOUT = 20.0


def overload(status: int) -> ApiError:
    return ApiError(status, "TooManyRequests", "try again", retry_after=0.0)


class FaultClient:
    """Answers with ``outcomes`` in turn, then with success."""

    def __init__(self) -> None:
        self.outcomes: list[ApiError | None] = []
        self.calls: list[tuple[str, Any]] = []
        self.in_flight = 0
        self.most = 0
        self.called = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()

    async def create(self, path: str, body: Any, **_: Any) -> bytes:
        return await self._answer("create", body)

    async def delete(self, path: str, *, uid: str, **_: Any) -> bytes:
        return await self._answer("delete", uid)

    async def _answer(self, kind: str, what: Any) -> bytes:
        self.calls.append((kind, what))
        self.called.set()
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await self.hold.wait()
        finally:
            self.in_flight -= 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome:
            raise outcome
        return b"{}"


class Bench:
    def __init__(self) -> None:
        self.client = FaultClient()
        self.actuator = Actuator(self.client)  # type: ignore[arg-type]
        self.doubts: list[ApiError] = []

    def start(self, name: str = POD.name) -> asyncio.Future[ApiError | None]:
        return self.actuator.create(NamespacedName("ns", name), name.encode(), pool=POOL, doubtful=self.doubts.append)

    async def create(self) -> ApiError | None:
        return await asyncio.wait_for(self.start(), TIMEOUT)

    async def delete(self) -> ApiError | None:
        return await asyncio.wait_for(self.actuator.delete(POD, uid="uid-1", pool=POOL), TIMEOUT)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "RETRY_FIRST", 0.001)
    bench = Bench()
    yield bench
    await bench.actuator.close()


async def test_a_pod_is_created(bench: Bench) -> None:
    assert await bench.create() is None
    assert bench.client.calls == [("create", b"pool-1")]
    assert not bench.doubts


async def test_a_name_that_exists_after_a_lost_answer_is_the_pod_that_was_made(bench: Bench) -> None:
    bench.client.outcomes = [LOST, TAKEN]
    assert await bench.create() is None
    assert bench.doubts == [LOST]
    assert bench.client.calls == [("create", b"pool-1")] * 2


@pytest.mark.parametrize("status", [0, 429, 500, 502, 503, 504])
async def test_what_is_not_definite_is_repeated(bench: Bench, status: int) -> None:
    error = overload(status) if status else LOST
    bench.client.outcomes = [error] * 5
    assert await bench.create() is None
    assert len(bench.client.calls) == 6
    assert set(bench.doubts) == {error}


async def test_a_pod_that_the_watch_has_shown_is_not_asked_for_again(bench: Bench) -> None:
    """It may be gone again by the next attempt, which would then make another under its name."""
    bench.client.outcomes = [LOST]
    doubted = asyncio.Event()
    creation = bench.actuator.create(POD, b"{}", pool=POOL, doubtful=lambda error: doubted.set())
    await asyncio.wait_for(doubted.wait(), TIMEOUT)
    bench.actuator.seen(POD)
    assert await asyncio.wait_for(creation, TIMEOUT) is None
    bench.actuator.seen(POD)
    assert await bench.delete() is None
    assert [kind for kind, _ in bench.client.calls] == ["create", "delete"]


async def test_what_a_closed_pool_asked_for_in_vain_is_given_up_with_its_doubt(bench: Bench) -> None:
    bench.client.outcomes = [LOST]
    doubted = asyncio.Event()
    creation = bench.actuator.create(POD, b"{}", pool=POOL, doubtful=lambda error: doubted.set())
    await asyncio.wait_for(doubted.wait(), TIMEOUT)
    bench.actuator.withdraw(NamespacedName("ns", "another"))
    assert not creation.done()
    bench.actuator.withdraw(POOL)
    assert await asyncio.wait_for(creation, TIMEOUT) is LOST


async def test_what_is_under_way_for_a_closed_pool_is_not_repeated(bench: Bench) -> None:
    bench.client.outcomes = [LOST]
    bench.client.hold.clear()
    creation = bench.start()
    await asyncio.wait_for(bench.client.called.wait(), TIMEOUT)
    bench.actuator.withdraw(POOL)
    bench.client.hold.set()
    assert await asyncio.wait_for(creation, TIMEOUT) is LOST


async def test_a_refusal_is_told_and_not_repeated(bench: Bench) -> None:
    refusal = ApiError(403, "Forbidden", "exceeded quota: small")
    bench.client.outcomes = [LOST, refusal]
    assert await bench.create() is refusal
    assert len(bench.client.calls) == 2


@pytest.mark.parametrize("answer", [ApiError(404, "NotFound", "gone"), ApiError(409, "Conflict", "uid"), None])
async def test_a_deletion_is_done_once_that_very_pod_is_gone(bench: Bench, answer: ApiError | None) -> None:
    bench.client.outcomes = [LOST, overload(503), answer]
    assert await bench.delete() is None
    assert bench.client.calls == [("delete", "uid-1")] * 3


async def test_a_refused_deletion_is_told(bench: Bench) -> None:
    refusal = ApiError(403, "Forbidden", "may not")
    bench.client.outcomes = [refusal]
    assert await bench.delete() is refusal


async def test_calls_under_way_are_bounded(bench: Bench) -> None:
    bench.client.hold.clear()
    answers = [bench.start(f"pool-{number}") for number in range(3 * IN_FLIGHT)]
    await asyncio.sleep(0)
    bench.client.hold.set()
    assert await asyncio.wait_for(asyncio.gather(*answers), TIMEOUT) == [None] * len(answers)
    assert 1 < bench.client.most <= IN_FLIGHT
    assert set(Counter(what for _, what in bench.client.calls).values()) == {1}


async def test_at_the_end_what_is_under_way_is_cancelled(bench: Bench) -> None:
    bench.client.hold.clear()
    bench.client.outcomes = [LOST]
    answers = [bench.start(f"pool-{number}") for number in range(2 * IN_FLIGHT)]
    await asyncio.sleep(0)
    await bench.actuator.close()
    assert all(answer.cancelled() for answer in answers)
    assert bench.client.in_flight == 0
    assert bench.start("late").cancelled()


async def test_on_a_real_api_server_only_that_very_pod_is_deleted(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    pod = NamespacedName(namespace, "pool-1")
    body = {
        "metadata": {"name": pod.name},
        "spec": {"containers": [{"name": "agent", "image": "none"}], "schedulerName": "none"},
    }
    async with cluster.client() as client:
        actuator = Actuator(client)
        for _ in range(2):  # the second time as if the first answer had been lost
            answer = actuator.create(pod, msgspec.json.encode(body), pool=POOL, doubtful=lambda error: None)
            assert await asyncio.wait_for(answer, TIMEOUT) is None
        uid = (await _read(client, pod)).uid
        assert await asyncio.wait_for(actuator.delete(pod, uid="another", pool=POOL), TIMEOUT) is None
        assert (await _read(client, pod)).deletion_timestamp is None
        assert await asyncio.wait_for(actuator.delete(pod, uid=uid, pool=POOL), TIMEOUT) is None
        assert await asyncio.wait_for(actuator.delete(pod, uid=uid, pool=POOL), TIMEOUT) is None
        await actuator.close()


async def _read(client: Client, pod: NamespacedName) -> ObjectMeta:
    return msgspec.json.decode(await client.get(paths.pod(pod)), type=Pod).metadata


async def test_lines_about_a_call_are_of_the_reconcile_that_wanted_it(bench: Bench) -> None:
    """Also where a worker that another reconcile has started makes it, and when it is repeated."""
    told: list[Any] = []

    async def create(path: str, body: Any, **_: Any) -> bytes:
        told.append(structlog.contextvars.get_contextvars().get("reconcile_id"))
        if told == ["one", "two"]:
            raise LOST
        return b"{}"

    bench.client.create = create  # type: ignore[method-assign]
    bench.actuator._calls.limit = 1
    answers = []
    for number in ("one", "two"):
        with structlog.contextvars.bound_contextvars(reconcile_id=number):
            answers.append(bench.start(number))
    assert await asyncio.wait_for(asyncio.gather(*answers), TIMEOUT) == [None, None]
    assert told == ["one", "two", "two"]
    assert structlog.contextvars.get_contextvars() == {}
