"""Lists and watches as a test scripts them, and what an informer makes of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
from aiohttp import web

from app.kube.client import Client
from app.kube.informer import Informer
from app.model.meta import NamespacedName
from app.model.pod import Pod
from tests.kube.faults import FaultServer, answer

PATH = "/api/v1/namespaces/ns/pods"
TIMEOUT = 20.0
"""Seconds after which a test that waits in vain fails."""

Change = tuple[Pod | None, Pod | None]


def pod(name: str, *, version: int = 10, uid: str = "", **fields: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": meta, **fields}


def page(*items: dict[str, Any], version: int = 10, token: str = "") -> web.Response:
    return answer({"kind": "PodList", "metadata": {"resourceVersion": str(version), "continue": token}, "items": items})


def event(kind: str, thing: Any) -> bytes:
    return msgspec.json.encode({"type": kind, "object": thing}) + b"\n"


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def drop(request: web.Request) -> None:
    assert request.transport
    request.transport.close()


class Watch:
    """A watch that an informer has begun."""

    def __init__(self, request: web.Request) -> None:
        self.query = dict(request.query)
        self.closed = asyncio.Event()
        self._request = request
        self._parts: asyncio.Queue[bytes | Literal["end", "cut"]] = asyncio.Queue()

    def send(self, *lines: bytes) -> None:
        for line in lines:
            self._parts.put_nowait(line)

    def end(self) -> None:
        """As the server ends a watch when its time is up."""
        self._parts.put_nowait("end")

    def cut(self) -> None:
        """Drop the connection once all that was sent is on its way."""
        self._parts.put_nowait("cut")

    async def serve(self) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(self._request)
        try:
            while isinstance(part := await self._parts.get(), bytes):
                await response.write(part)
            if part == "cut":
                drop(self._request)
        finally:  # when the client closes the connection, aiohttp cancels this
            self.closed.set()
        return response


class Script:
    """Answers lists and watches in turn, in the order of ``lists`` and ``refusals``; other watches stay open."""

    def __init__(self, server: FaultServer) -> None:
        self.lists: list[web.Response | None] = []
        """None drops the connection without an answer; the last one is given again and again."""
        self.refusals: list[web.StreamResponse] = []
        self.hold = asyncio.Event()
        """Pages after the first wait for this."""
        self.hold.set()
        self.held = asyncio.Event()
        self._server = server
        self._watches: asyncio.Queue[Watch] = asyncio.Queue()
        server.handler = self._handle

    async def watch(self) -> Watch:
        """The next watch to begin."""
        return await asyncio.wait_for(self._watches.get(), TIMEOUT)

    @property
    def listed(self) -> list[dict[str, str]]:
        """The queries of the lists so far."""
        return [seen.query for seen in self._server.seen if "watch" not in seen.query]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        assert request.path == PATH
        if "watch" in request.query:
            if self.refusals:
                return self.refusals.pop(0)
            watch = Watch(request)
            self._watches.put_nowait(watch)
            return await watch.serve()
        if "continue" in request.query and not self.hold.is_set():
            self.held.set()
            await self.hold.wait()
        response = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if response is None:
            drop(request)
            return web.Response()
        return web.Response(status=response.status, headers=response.headers, body=response.body)


class Follower:
    """An informer and the changes that it told of."""

    def __init__(self, client: Client, path: str = PATH, **options: Any) -> None:
        self.changes: asyncio.Queue[Change] = asyncio.Queue()
        self.informer = Informer(client, path=path, type=Pod, on_change=self._changed, **options)

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        self.changes.put_nowait((old, new))

    async def synced(self) -> None:
        await asyncio.wait_for(self.informer.synced.wait(), TIMEOUT)

    async def next(self) -> str:
        """The next change: ``+name``, ``-name``, ``~name``, each with the version (``-`` the last one known)."""
        old, new = await asyncio.wait_for(self.changes.get(), TIMEOUT)
        present = new or old
        assert present
        sign = "~" if old and new else "+" if new else "-"
        return f"{sign}{present.metadata.name}@{present.metadata.resource_version}"

    async def several(self, count: int) -> list[str]:
        return [await self.next() for _ in range(count)]

    @property
    def names(self) -> set[str]:
        return {key.name for key in self.informer.store}

    def get(self, name: str) -> Pod | None:
        return self.informer.store.get(NamespacedName("ns", name))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.informer.run())
        try:
            yield
            assert not task.done(), "an informer ends only when it is cancelled"
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()
