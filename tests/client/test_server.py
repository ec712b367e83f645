"""A way to the server that stands and carries nothing any more, as a port-forward whose other end is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from app.client import server as module
from app.client.errors import ClientError, Exit
from app.client.server import Server
from app.proto.velda_pb2 import SessionRequest
from tests.kube.faults import FaultServer, answer, failure


class Far:
    """``gone``: it takes requests and answers none. A session runs once ``idle`` is set."""

    def __init__(self) -> None:
        self.idle, self.asked = asyncio.Event(), asyncio.Event()
        self.gone = False
        self.pulses = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.set()
        if self.gone:
            await asyncio.Event().wait()
        if request.path == "/healthz":
            self.pulses += 1
            return failure(404, message="an ingress has no such path")
        if request.path.endswith("/watch"):
            watch = web.StreamResponse()
            await watch.prepare(request)
            await watch.write(b'{"result": {"pool": "cpu"}}\n\n')
            await asyncio.Event().wait()
        await self.idle.wait()
        return answer({"sessionId": "s"})


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Far:
    monkeypatch.setattr(module, "PULSE", 0.05)
    return Far()


@pytest.fixture
async def server(far: Far) -> AsyncIterator[Server]:
    async with FaultServer(far) as fault, fault.client() as client:
        yield Server(client, "the server")


async def test_who_waits_in_a_queue_notices(far: Far, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PULSE_TIMEOUT", 0.05)
    waiting = asyncio.create_task(server.request_session(SessionRequest(pool="cpu"), timeout=60))
    await far.asked.wait()
    far.gone = True
    with pytest.raises(ClientError, match="the server does not answer any more") as raised:
        await asyncio.wait_for(waiting, 30)
    assert (raised.value.code, raised.value.passing) == (Exit.UNAVAILABLE, True)


async def test_any_answer_is_one(far: Far, server: Server) -> None:
    waiting = asyncio.create_task(server.request_session(SessionRequest(pool="cpu"), timeout=60))
    async with asyncio.timeout(30):
        while far.pulses < 3:  # noqa: ASYNC110  a count has no event
            await asyncio.sleep(0.01)
    far.idle.set()
    assert (await waiting).session_id == "s"


async def test_who_watches_notices(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.05)
    notifications = server.watch_pool("cpu")
    assert (await anext(notifications)).pool == "cpu"
    with pytest.raises(ClientError) as raised:
        await anext(notifications)
    assert raised.value.passing
