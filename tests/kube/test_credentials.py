"""Tokens are renewed when due or refused; a renewal that fails is no reason to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from aiohttp import web

from app.kube import credentials as module
from app.kube.client import Client
from app.kube.endpoint import Endpoint
from app.kube.errors import ApiError
from app.settings import SettingsError
from tests.kube.faults import FaultServer, answer, failure


class Tokens:
    """A source that hands out one token after the other; None stands for a failure."""

    def __init__(self, faults: FaultServer, *tokens: str | None, expired: bool = False) -> None:
        self._faults = faults
        self._tokens = list(tokens)
        self._expires = time.monotonic() - 1 if expired else None
        self.asked = 0

    async def __call__(self) -> Endpoint:
        self.asked += 1
        await asyncio.sleep(0)
        token = self._tokens.pop(0)
        if token is None:
            raise SettingsError("the plugin failed")
        return self._faults.endpoint(authorization=f"Bearer {token}")

    def first(self) -> Endpoint:
        return self._faults.endpoint(authorization="Bearer first", expires=self._expires)


def accepting(*tokens: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        known = request.headers.get("Authorization") in [f"Bearer {token}" for token in tokens]
        return answer(b"{}\n") if known else failure(401, "Unauthorized")

    return handler


def sent(faults: FaultServer) -> list[str]:
    return [seen.headers["Authorization"].removeprefix("Bearer ") for seen in faults.seen]


async def test_a_refused_token_is_renewed_once(faults: FaultServer) -> None:
    faults.handler = accepting("second")
    tokens = Tokens(faults, "second")
    async with Client(tokens, tokens.first()) as client:
        await client.get("/version")
        await client.get("/version")
    assert sent(faults) == ["first", "second", "second"]


async def test_a_token_that_stays_refused_is_an_error(faults: FaultServer) -> None:
    faults.handler = accepting()
    tokens = Tokens(faults, "second")
    async with Client(tokens, tokens.first()) as client:
        with pytest.raises(ApiError) as raised:
            await client.get("/version")
    assert raised.value.status == 401
    assert sent(faults) == ["first", "second"]


async def test_a_watch_that_is_refused_has_a_new_token_the_next_time(faults: FaultServer) -> None:
    faults.handler = accepting("second")
    tokens = Tokens(faults, "second")
    async with Client(tokens, tokens.first()) as client:
        for _ in range(2):
            with suppress(ApiError):
                assert [line async for line in client.watch("/pods", {}, silence=5)] == [b"{}"]
    assert sent(faults) == ["first", "second"]


async def test_requests_together_renew_together(faults: FaultServer) -> None:
    faults.handler = accepting("second")
    tokens = Tokens(faults, "second", expired=True)
    async with Client(tokens, tokens.first()) as client:
        await asyncio.gather(*(client.get("/version") for _ in range(10)))
    assert tokens.asked == 1
    assert set(sent(faults)) == {"second"}


async def test_a_renewal_that_fails_leaves_the_old_token_in_use(faults: FaultServer) -> None:
    faults.handler = accepting("first")
    tokens = Tokens(faults, None, "second", expired=True)
    async with Client(tokens, tokens.first()) as client:
        await client.get("/version")
        await client.get("/version")
    assert sent(faults) == ["first", "first"]
    assert tokens.asked == 1  # and it is not asked again for each request


async def test_a_renewal_that_hangs_is_given_up(faults: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_TIMEOUT", 0.05)
    faults.handler = accepting("first")

    async def hang() -> Endpoint:
        await asyncio.Event().wait()
        raise AssertionError

    first = Tokens(faults, expired=True).first()
    async with Client(hang, first) as client:
        await client.get("/version")
    assert sent(faults) == ["first"]


async def test_closing_ends_a_renewal(faults: FaultServer) -> None:
    hanging = asyncio.Event()

    async def hang() -> Endpoint:
        hanging.set()
        await asyncio.Event().wait()
        raise AssertionError

    client = Client(hang, Tokens(faults, expired=True).first())
    request = asyncio.create_task(client.get("/version"))
    await hanging.wait()
    request.cancel()
    await client.close()
    assert await asyncio.gather(request, return_exceptions=True)
