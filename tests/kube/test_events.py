"""Events are told once and counted, in bounds, and never at the cost of the one who tells them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest
import structlog
from aiohttp import web

from app.kube import events as module
from app.kube import paths
from app.kube.client import Client
from app.kube.events import EventRecorder
from app.model.agentpool import AgentPool
from app.model.meta import ObjectMeta
from tests.kube.faults import FaultServer, answer, failure
from tests.support.cluster import Cluster

TIMEOUT = 30.0


def pool(name: str = "shell", namespace: str = "ns") -> AgentPool:
    return AgentPool(metadata=ObjectMeta(name=name, namespace=namespace, uid=f"uid-of-{name}"))


@asynccontextmanager
async def running(recorder: EventRecorder) -> AsyncIterator[None]:
    task = asyncio.create_task(recorder.run())
    try:
        async with asyncio.timeout(TIMEOUT):
            yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Sink:
    """Takes events, or refuses them with ``refusal``."""

    def __init__(self, faults: FaultServer) -> None:
        self.refusal: Callable[[str], web.Response | None] = lambda _: None
        self._faults = faults
        self._arrived = asyncio.Event()
        faults.handler = self._handle

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._arrived.set()
        return self.refusal(request.method) or answer({})

    async def requests(self, count: int) -> list[tuple[str, Any]]:
        """Method and body of the first so many, as soon as they are there."""
        while len(self._faults.seen) < count:
            self._arrived.clear()
            await self._arrived.wait()
        return [(seen.method, msgspec.json.decode(seen.body)) for seen in self._faults.seen[:count]]


@pytest.fixture
def sink(faults: FaultServer) -> Sink:
    return Sink(faults)


@pytest.fixture
def recorder(client: Client) -> EventRecorder:
    return EventRecorder(client, instance="replica-1")


async def test_an_event_says_what_about_which_pool_and_who_says_so(sink: Sink, recorder: EventRecorder) -> None:
    recorder.record(pool(), "Warning", "CreateFailed", "quota exceeded")
    async with running(recorder):
        [(method, body)] = await sink.requests(1)
    assert method == "POST"
    assert body["involvedObject"] == {
        "apiVersion": "velda.io/v1",
        "kind": "AgentPool",
        "namespace": "ns",
        "name": "shell",
        "uid": "uid-of-shell",
    }
    assert [body[key] for key in ("type", "reason", "message", "count")] == [
        "Warning",
        "CreateFailed",
        "quota exceeded",
        1,
    ]
    assert (body["reportingComponent"], body["reportingInstance"]) == ("velda-apiserver", "replica-1")


async def test_equal_events_are_counted_before_and_after_the_first_is_written(
    sink: Sink, recorder: EventRecorder
) -> None:
    for _ in range(3):
        recorder.record(pool(), "Normal", "Created", "Created 1 agent")
    async with running(recorder):
        [(_, made)] = await sink.requests(1)
        for _ in range(2):
            recorder.record(pool(), "Normal", "Created", "Created 1 agent")
        _, (method, patch) = await sink.requests(2)
    assert made["count"] == 3
    assert method == "PATCH"
    assert patch == {"count": 5, "lastTimestamp": patch["lastTimestamp"]}


async def test_an_event_that_the_server_has_forgotten_is_told_anew(sink: Sink, recorder: EventRecorder) -> None:
    async with running(recorder):
        recorder.record(pool(), "Normal", "Created", "Created 1 agent")
        await sink.requests(1)
        sink.refusal = lambda method: failure(404, "NotFound") if method == "PATCH" else None
        recorder.record(pool(), "Normal", "Created", "Created 1 agent")
        first, patch, second = await sink.requests(3)
    assert (first[0], patch[0], second[0]) == ("POST", "PATCH", "POST")
    assert second[1]["count"] == 1
    assert second[1]["metadata"]["name"] != first[1]["metadata"]["name"]


async def test_a_flood_is_cut_off_and_leaves_room_for_others(
    sink: Sink, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACE", 0.0)
    for number in range(5000):
        recorder.record(pool(), "Normal", "Deleted", f"Deleted agent {number}")
    recorder.record(pool(), "Warning", "CreateFailed", "refused")
    recorder.record(pool("other"), "Normal", "Deleted", "Deleted agent 1")
    async with running(recorder):
        told = [body["message"] for _, body in await sink.requests(module.WAITING_ALIKE + 2)]
        recorder.record(pool(), "Normal", "Deleted", "Deleted agent 5001")
        after = await sink.requests(module.WAITING_ALIKE + 3)
    assert told[-2:] == ["refused", "Deleted agent 1"]
    assert after[-1][1]["message"] == "Deleted agent 5001"


async def test_memory_is_bounded(recorder: EventRecorder) -> None:
    for number in range(3 * module.WAITING):
        recorder.record(pool(f"pool-{number}"), "Normal", "Created", "Created 1 agent")
    assert len(recorder._waiting) == module.WAITING
    assert len(recorder._alike) <= 3 * module.WAITING


@pytest.mark.parametrize("status", [403, 500])
async def test_a_failure_is_logged_and_the_next_event_written(sink: Sink, recorder: EventRecorder, status: int) -> None:
    sink.refusal = lambda _: failure(status, "Refused", "no events today")
    with structlog.testing.capture_logs() as logs:
        async with running(recorder):
            recorder.record(pool(), "Normal", "Created", "one")
            await sink.requests(1)
            recorder.record(pool(), "Normal", "Created", "two")
            await sink.requests(2)
    assert "no events today" in logs[0]["error"]
    assert logs[0]["pool"] == "ns/shell"


async def test_nobody_hears_of_a_namespace_that_ends(sink: Sink, recorder: EventRecorder) -> None:
    cause = {
        "reason": "NamespaceTerminating",
        "field": "metadata.namespace",
        "message": "namespace ns is being terminated",
    }
    status = {"code": 403, "reason": "Forbidden", "message": "forbidden", "details": {"causes": [cause]}}
    sink.refusal = lambda _: answer(status, status=403)
    with structlog.testing.capture_logs() as logs:
        async with running(recorder):
            recorder.record(pool(), "Normal", "Created", "one")
            await sink.requests(1)
            recorder.record(pool(), "Normal", "Created", "two")
            await sink.requests(2)
    assert not logs


async def test_long_messages_and_names_are_cut_to_what_the_server_takes(sink: Sink, recorder: EventRecorder) -> None:
    recorder.record(pool("x" * 199 + "." + "y" * 53), "Normal", "Created", "é" * 5000)
    async with running(recorder):
        [(_, body)] = await sink.requests(1)
    assert len(body["message"]) == 1024
    assert body["message"].endswith("é…")
    assert len(body["metadata"]["name"]) <= 253
    assert ".." not in body["metadata"]["name"]


async def test_kubectl_shows_the_count(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    about = pool(namespace=namespace)
    async with cluster.client() as client:
        recorder = EventRecorder(client, instance="replica-1")
        for _ in range(2):
            recorder.record(about, "Warning", "CreateFailed", "quota exceeded")
        recorder.record(about, "Normal", "Created", "Created 2 agents")
        async with running(recorder):
            for expected in ([1, 2], [1, 3]):
                await until_counts(client, namespace, expected)
                recorder.record(about, "Warning", "CreateFailed", "quota exceeded")
    shown = cluster.kubectl("events", f"--namespace={namespace}").stdout
    assert re.search(r"\(x[34] over .*Warning +CreateFailed +AgentPool/shell +quota exceeded", shown), shown
    assert re.search(r"Normal +Created +AgentPool/shell +Created 2 agents", shown), shown


async def until_counts(client: Client, namespace: str, counts: list[int]) -> None:
    while True:
        found = msgspec.json.decode(await client.get(paths.events(namespace)))["items"]
        if sorted(event["count"] for event in found) == counts:
            return
        await asyncio.sleep(0.1)
