"""Limits on HTTP over real sockets: size and time of headers and bodies; and 10,000 streams of noise."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
from fastapi import APIRouter, Request

from app.api.app import create
from app.api.auth import Protocol
from app.api.limits import bounded
from app.broker.reports import LINES, LINES_PER_SECOND
from app.settings import Limits
from tests.api.serving import listening
from tests.support.limits import refused_by

LIMITS = Limits().model_copy(update={"header_bytes": 8192, "body_bytes": 65536, "request_seconds": 1})
STREAMS = 10_000
AT_ONCE = 100


@asynccontextmanager
async def served(limits: Limits = LIMITS) -> AsyncIterator[int]:
    router = APIRouter()

    @router.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    app = create(webhook_router=router, ready=lambda: None, rbac=None, leading=lambda: None, limits=limits)
    options = {"http": bounded(Protocol, limits), "h11_max_incomplete_event_size": limits.header_bytes}
    async with listening(app, **options) as port:
        yield port


async def say(port: int, *parts: bytes) -> bytes:
    """All that the server answers until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_headers_that_are_too_large() -> None:
    async with served() as port:
        with refused_by("header_bytes"):
            answer = await say(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"the headers are too large (limits.header_bytes: 8192)")


@pytest.mark.parametrize("length", [b"Content-Length: 70000", b"Transfer-Encoding: chunked"])
async def test_a_body_that_is_too_large(length: bytes) -> None:
    async with served() as port:
        with refused_by("body_bytes"):
            head = b"POST /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + length + b"\r\n\r\n"
            answer = await say(port, head, b"11170\r\n" + b"x" * 70_000 + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"the body is too large (limits.body_bytes: 65536)" in answer


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /healthz HTTP/1.1\r\nX: "],
    ids=["nothing", "half a request"],
)
async def test_headers_that_do_not_arrive(said: bytes) -> None:
    async with served() as port:
        with refused_by("request_seconds"):
            assert await say(port, said) == b""


async def test_headers_of_a_second_request_that_do_not_arrive() -> None:
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with refused_by("request_seconds"):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"ok\n")
            writer.write(b"GET /healthz HT")
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_a_body_that_does_not_arrive() -> None:
    async with served() as port:
        with refused_by("request_seconds"):
            answer = await say(
                port, b"POST /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhalf"
            )
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the body has not arrived (limits.request_seconds: 1)" in answer


async def test_noise_is_refused_without_a_flood_in_the_log_and_others_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    noise = random.Random(5)
    loop = asyncio.get_running_loop()
    async with served() as port:
        with structlog.testing.capture_logs() as logs:
            began, memory = loop.time(), resident_kib()
            for _ in range(STREAMS // AT_ONCE):
                said = [noise.randbytes(noise.randrange(1, 200)) + b"\r\n\r\n" for _ in range(AT_ONCE)]
                answers = await asyncio.gather(*(say(port, one) for one in said))
                assert not [answer for answer in answers if b" 500 " in answer[:20]]
            seconds, memory = loop.time() - began, resident_kib() - memory
        assert 0 < len(logs) <= LINES + LINES_PER_SECOND * (seconds + 1)
        assert memory < 64 * 1024
        ok = await say(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert ok.endswith(b"ok\n")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def resident_kib() -> int:
    """The most that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
