"""Health, readiness, and the limit on bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import httpx
import pytest
from fastapi import APIRouter, Request

from app.api.app import create
from app.broker.rbac import Rbac
from app.kube.client import Client
from app.settings import Clients, Limits

BODY_LIMIT = Limits().body_bytes
RBAC = Rbac(cast(Client, None), Clients())
"""What these tests ask for needs no Kubernetes API."""


class Readiness:
    reason: str | None = None

    def __call__(self) -> str | None:
        return self.reason


@pytest.fixture
def ready() -> Readiness:
    return Readiness()


@pytest.fixture
async def http(ready: Readiness) -> AsyncIterator[httpx.AsyncClient]:
    router = APIRouter()

    @router.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    app = create(webhook_router=router, ready=ready, rbac=RBAC, leading=lambda: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://server") as client:
        yield client


async def test_health_and_readiness(http: httpx.AsyncClient, ready: Readiness) -> None:
    assert (await http.get("/healthz")).text == "ok\n"
    assert (await http.get("/readyz")).text == "ok\n"
    ready.reason = "the caches are not filled yet"
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "the caches are not filled yet\n")
    assert (await http.get("/healthz")).status_code == 200


async def test_who_is_not_ready_parts_with_every_connection(http: httpx.AsyncClient, ready: Readiness) -> None:
    assert "connection" not in (await http.post("/length", content=b"x")).headers
    ready.reason = "stopping"
    answer = await http.post("/length", content=b"x")
    assert (answer.text, answer.headers["connection"]) == ("1", "close")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/rest", "/"])
async def test_there_are_no_other_pages(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 404


async def chunks(total: int) -> AsyncIterator[bytes]:
    for start in range(0, total, 65536):
        yield b"x" * min(65536, total - start)


async def test_a_body_at_the_limit_is_read(http: httpx.AsyncClient) -> None:
    assert (await http.post("/length", content=b"x" * BODY_LIMIT)).text == str(BODY_LIMIT)
    assert (await http.post("/length", content=chunks(BODY_LIMIT))).text == str(BODY_LIMIT)


async def test_a_larger_one_is_413_whether_or_not_it_tells_its_length(http: httpx.AsyncClient) -> None:
    for content in (b"x" * (BODY_LIMIT + 1), chunks(BODY_LIMIT + 1)):
        answer = await http.post("/length", content=content)
        assert (answer.status_code, answer.text) == (413, f"the body is too large (limits.body_bytes: {BODY_LIMIT})\n")


async def test_a_larger_one_is_not_read_to_its_end(ready: Readiness) -> None:
    router = APIRouter()

    @router.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    app = create(webhook_router=router, ready=ready, rbac=RBAC, leading=lambda: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://server") as client:
        answer = await client.post("/length", content=endless())
    assert answer.status_code == 413
    assert sent <= BODY_LIMIT + 65536


@pytest.mark.parametrize("header", [{}, {"Authorization": "Basic x"}, {"Authorization": "Bearer "}])
async def test_metrics_need_a_token(http: httpx.AsyncClient, header: dict[str, str]) -> None:
    answer = await http.get("/metrics", headers=header)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
