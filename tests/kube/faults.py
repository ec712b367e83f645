"""An API server of the test's own on loopback, for answers that the real one cannot be made to give."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.kube.client import Client
from app.kube.endpoint import Endpoint, trust

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class FaultServer:
    """Records every request, and lets ``handler`` answer it."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.handler: Handler = handler or _nothing_here
        self.seen: list[Seen] = []
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._server = TestServer(app, host="127.0.0.1", skip_url_asserts=True)

    async def __aenter__(self) -> Self:
        await self._server.start_server(shutdown_timeout=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    def endpoint(self, **fields: Any) -> Endpoint:
        return Endpoint(server=self.url, tls=trust(), **fields)

    def client(self) -> Client:
        endpoint = self.endpoint()

        async def source() -> Endpoint:
            return endpoint

        return Client(source, endpoint)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(Seen(request.method, request.path, dict(request.query), dict(request.headers), body))
        return await self.handler(request)


def answer(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def failure(code: int, reason: str = "", message: str = "", *, headers: dict[str, str] | None = None) -> web.Response:
    """A metav1.Status as the API server sends it."""
    return answer(failure_body(code, reason, message), status=code, headers=headers)


def failure_body(code: int, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


async def silence(_: web.Request) -> web.StreamResponse:
    """No answer, as from a machine that has gone."""
    await asyncio.Event().wait()
    raise AssertionError


async def _nothing_here(_: web.Request) -> web.StreamResponse:
    return failure(404, "NotFound", "not found")
