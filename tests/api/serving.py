"""The REST API with a live broker behind it: our application on a loopback port, and agents that take sessions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import APIRouter, FastAPI

from app.api.app import create
from app.broker.clients import Clients
from app.model.meta import NamespacedName
from tests.broker.wire import Plane, agent, serving
from tests.broker.world import CPU, Pools


@asynccontextmanager
async def listening(app: FastAPI, **options: Any) -> AsyncIterator[int]:
    """The application over HTTP, with uvicorn's options; its port on loopback."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1, **options
    )
    server, door = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0), backlog=1024)
    running = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield door.getsockname()[1]
    finally:
        server.should_exit = True
        await running


class Rest:
    """``leading`` may be set to None, as when another replica leads."""

    def __init__(self, plane: Plane, pools: Pools) -> None:
        self.plane = plane
        self.pools = pools
        self.leading: Clients | None = plane.server.clients
        self.app: FastAPI = create(
            webhook_router=APIRouter(), ready=lambda: None, rbac=None, leading=lambda: self.leading
        )
        self.port = 0


@asynccontextmanager
async def rest(*keys: NamespacedName) -> AsyncIterator[Rest]:
    pools = Pools(*(keys or (CPU,)))
    async with serving(pools) as plane:
        served = Rest(plane, pools)
        async with listening(served.app) as served.port:
            yield served


def client(served: Rest) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}/rest", trust_env=False, timeout=30)


@asynccontextmanager
async def willing_agent(served: Rest, *, slots: int = 1) -> AsyncIterator[None]:
    """One that starts each session that it is given, and ends it at once."""
    async with agent(served.plane, slots=slots) as wire:

        async def work() -> None:
            while True:
                await wire.end(await wire.start())

        working = asyncio.create_task(work())
        try:
            yield
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
