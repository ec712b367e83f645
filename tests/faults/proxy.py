"""What stands between the server and its API server, and between agents and the server, and fails as told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NoReturn, Self

import aiohttp
from aiohttp import web
from yarl import URL

from tests.support.api import Object, credentials
from tests.support.pki import Pki
from tests.support.plane import Plane
from tests.support.process import free_port
from tests.support.relay import relay

Forward = Callable[[], Awaitable[web.StreamResponse]]
Fault = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]
"""Answers a request itself, or lets it be answered by the API server."""
_HOP = {"connection", "host", "transfer-encoding", "content-length", "content-encoding", "accept-encoding"}


class ApiProxy:
    """An API server by itself, as its clients see it; ``fault`` says what becomes of each request.

    ``flowing``: cleared, connections stand but carry nothing, watches included; ``watching``: cleared, only watches.
    ``delay`` is by how many seconds each part of a watch is late.
    """

    def __init__(self, plane: Plane, pki: Pki) -> None:
        self._plane = plane
        self._port = free_port()
        self._certificate = pki.issue_server(f"proxy-{self._port}", hosts=["127.0.0.1"])
        self._runner: web.AppRunner | None = None
        self._cutting = asyncio.Event()
        self.fault: Fault = healthy
        self.delay = 0.0
        self.flowing, self.watching = asyncio.Event(), asyncio.Event()
        self.heal()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, with this proxy's address."""
        path = self._plane.directory / f"proxy-{self._port}.kubeconfig"
        path.touch(mode=0o600)
        ours = f"https://127.0.0.1:{self._port}"
        path.write_text(self._plane.kubeconfig.read_text().replace(self._plane.server, ours))
        return path

    async def __aenter__(self) -> Self:
        server, context = credentials(self._plane.kubeconfig)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(server, connector=connector, timeout=timeout)
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*self._certificate)
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=tls).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        assert self._runner is not None
        await self._runner.cleanup()
        await self._session.close()

    def heal(self) -> None:
        self.fault, self.delay = healthy, 0.0
        self.flowing.set()
        self.watching.set()

    def cut(self) -> None:
        """Every request that stands breaks, watches in the middle of a line."""
        self._cutting.set()
        self._cutting = asyncio.Event()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        cutting = asyncio.create_task(self._cutting.wait())
        answering = asyncio.ensure_future(self.fault(request, lambda: self._forward(request, body)))
        try:
            await asyncio.wait({cutting, answering}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                return answering.result()
            if isinstance(begun := request.get("begun"), web.StreamResponse):
                await begun.write(b'{"type":"MODIFIED","object":{"kind":"Po')
            abort(request)
        except aiohttp.ClientError:
            abort(request)
        finally:
            cutting.cancel()
            answering.cancel()
            await asyncio.gather(cutting, answering, return_exceptions=True)

    async def _forward(self, request: web.Request, body: bytes) -> web.StreamResponse:
        await self.flowing.wait()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        headers["Accept-Encoding"] = "identity"
        url = URL(request.raw_path, encoded=True)
        async with self._session.request(request.method, url, data=body, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if not is_watch(request):
                content = await answer.read()
                await self.flowing.wait()
                return web.Response(status=answer.status, headers=kept, body=content)
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            request["begun"] = response
            async for chunk in answer.content.iter_any():
                await self.flowing.wait()
                await self.watching.wait()
                await asyncio.sleep(self.delay)
                request["whole"] = chunk.endswith(b"\n")
                await response.write(chunk)
            return response


async def healthy(_: web.Request, forward: Forward) -> web.StreamResponse:
    return await forward()


class Noise:
    """A fault: beside what is so, each watch of pods tells of changes of ``pods`` that never were, ``rate`` a second.

    ``sent`` counts them; a reader that is slower than that gets as many as it takes.
    """

    def __init__(self, pods: Sequence[Object], *, rate: int) -> None:
        changed = (_changed(pod, word) for pod in pods for word in ("one", "other"))
        self._lines = [json.dumps({"type": "MODIFIED", "object": pod}).encode() + b"\n" for pod in changed]
        self._rate = rate
        self.sent = 0

    async def __call__(self, request: web.Request, forward: Forward) -> web.StreamResponse:
        if not is_watch(request) or not request.path.endswith("/pods"):
            return await forward()
        async with asyncio.TaskGroup() as group:
            making = group.create_task(self._make(request))
            answer = await forward()
            making.cancel()
        return answer

    async def _make(self, request: web.Request) -> None:
        lines, batch, began, sent = itertools.cycle(self._lines), self._rate // 20, time.monotonic(), 0
        while True:
            begun, due = request.get("begun"), self._rate * (time.monotonic() - began) - sent
            if due < batch or not isinstance(begun, web.StreamResponse) or not request.get("whole", True):
                await asyncio.sleep(0.01)
                continue
            await begun.write(b"".join(itertools.islice(lines, batch)))
            sent += batch
            self.sent += batch


def _changed(pod: Object, word: str) -> Object:
    """A version that is no number is neither older nor newer than others."""
    meta = pod["metadata"]
    return {**pod, "metadata": {**meta, "resourceVersion": word, "labels": {**meta["labels"], "noise": word}}}


def is_watch(request: web.Request) -> bool:
    return "watch" in request.query


def abort(request: web.Request) -> NoReturn:
    """As when the other machine is gone: the connection breaks without an answer."""
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("the test cuts it")


class Door:
    """The broker's Service: it leads to the port that ``leader`` gives then; connections that stand stay as they are.

    ``flowing``: cleared, connections stand but carry nothing. Not ``open``: nobody gets in.
    """

    def __init__(self, leader: Callable[[], int | None]) -> None:
        self._leader = leader
        self.address = f"127.0.0.1:{free_port()}"
        self.open = True
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        host, _, port = self.address.partition(":")
        server = await asyncio.start_server(self._enter, host, int(port), backlog=1000)
        try:
            yield
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    def cut(self) -> None:
        """Connections that stand are reset."""
        self.flowing.set()
        for writer in self._writers:
            writer.transport.abort()

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            port = self._leader()
            if port is None or not self.open:
                raise ConnectionRefusedError
            server = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        writers = {writer, server[1]}
        self._writers |= writers
        try:
            await relay((reader, writer), server, flowing=self.flowing)
        finally:
            self._writers -= writers
