"""Requests and watches of the client, against a server that does as the test says."""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from app import __version__
from app.kube import client as module
from app.kube.client import Client
from app.kube.errors import ApiError, ApiUnreachable
from app.obs import metrics
from tests.kube.faults import FaultServer, Handler, answer, failure, silence

PATH = "/api/v1/namespaces/ns/pods"


def script(*answers: web.Response) -> Handler:
    """Each answer once, in order."""
    left = list(answers)

    async def handler(_: web.Request) -> web.StreamResponse:
        return left.pop(0)

    return handler


def counted(method: str, code: str) -> float:
    registry: CollectorRegistry = metrics.REGISTRY
    return registry.get_sample_value("velda_api_requests_total", {"method": method, "code": code}) or 0.0


async def test_what_a_request_carries(faults: FaultServer, client: Client) -> None:
    faults.handler = script(*(answer({}) for _ in range(6)))
    await client.get(PATH, params={"limit": "1"})
    await client.create(PATH, {"kind": "Pod"}, params={"dryRun": "All"})
    await client.replace(f"{PATH}/a", b'{"kind":"Pod"}')
    await client.apply(f"{PATH}/a", {"a": 1}, manager="me")
    await client.merge_patch(f"{PATH}/a", {"a": None})
    await client.json_patch(f"{PATH}/a", [{"op": "remove", "path": "/a"}])
    assert [(seen.method, seen.query, seen.headers.get("Content-Type"), seen.body) for seen in faults.seen] == [
        ("GET", {"limit": "1"}, None, b""),
        ("POST", {"dryRun": "All"}, "application/json", b'{"kind":"Pod"}'),
        ("PUT", {}, "application/json", b'{"kind":"Pod"}'),
        ("PATCH", {"fieldManager": "me", "force": "true"}, "application/apply-patch+yaml", b'{"a":1}'),
        ("PATCH", {}, "application/merge-patch+json", b'{"a":null}'),
        ("PATCH", {}, "application/json-patch+json", b'[{"op":"remove","path":"/a"}]'),
    ]
    assert {seen.headers["User-Agent"] for seen in faults.seen} == {f"velda-apiserver/{__version__}"}
    assert {seen.headers["Accept"] for seen in faults.seen} == {"application/json"}


async def test_behind_a_fence_nothing_is_written(faults: FaultServer, client: Client) -> None:
    may = True
    fenced = client.fenced(lambda: may)
    faults.handler = script(*(answer({}) for _ in range(3)))
    await fenced.create(PATH, {})
    may = False
    for write in (fenced.create(PATH, {}), fenced.delete(PATH), fenced.merge_patch(PATH, {}), fenced.apply(PATH, {})):
        with pytest.raises(ApiUnreachable, match="was not sent"):
            await write
    await fenced.get(PATH)
    await client.delete(PATH)
    assert [seen.method for seen in faults.seen] == ["POST", "GET", "DELETE"]


async def test_what_waits_for_another_try_is_not_sent_once_the_fence_is_up(faults: FaultServer, client: Client) -> None:
    may = True

    async def handler(_: web.Request) -> web.StreamResponse:
        nonlocal may
        may = False
        return failure(429, "TooManyRequests", headers={"Retry-After": "0"})

    faults.handler = handler
    with pytest.raises(ApiUnreachable, match="was not sent"):
        await client.fenced(lambda: may).create(PATH, {})
    assert len(faults.seen) == 1


async def test_a_deletion_carries_its_preconditions(faults: FaultServer, client: Client) -> None:
    faults.handler = script(answer({}), answer({}))
    await client.delete(f"{PATH}/a")
    await client.delete(f"{PATH}/a", uid="u", resource_version="7", grace_seconds=0)
    plain, guarded = (msgspec.json.decode(seen.body) for seen in faults.seen)
    assert "preconditions" not in plain
    assert guarded["preconditions"] == {"uid": "u", "resourceVersion": "7"}
    assert guarded["gracePeriodSeconds"] == 0


async def test_environment_proxies_are_not_used(
    faults: FaultServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    faults.handler = script(answer({"a": 1}))
    assert await client.get(PATH) == b'{"a":1}'


async def test_the_proxy_of_the_kubeconfig_is_used(faults: FaultServer) -> None:
    faults.handler = script(answer({"a": 1}))
    endpoint = msgspec.structs.replace(faults.endpoint(proxy=faults.url), server="http://cluster.invalid")

    async def source() -> Any:
        return endpoint

    async with Client(source, endpoint) as client:
        assert await client.get(PATH) == b'{"a":1}'
    assert faults.seen[0].headers["Host"] == "cluster.invalid"


async def test_an_error_is_raised_and_counted(faults: FaultServer, client: Client) -> None:
    before = counted("POST", "403")
    faults.handler = script(failure(403, "Forbidden", "exceeded quota"))
    with pytest.raises(ApiError, match="exceeded quota") as raised:
        await client.create(PATH, {})
    assert (raised.value.status, raised.value.reason) == (403, "Forbidden")
    assert counted("POST", "403") == before + 1


async def test_429_is_obeyed(faults: FaultServer, client: Client) -> None:
    faults.handler = script(failure(429, "TooManyRequests", headers={"Retry-After": "0"}), answer({"a": 1}))
    assert await client.get(PATH) == b'{"a":1}'


async def test_429_again_and_again_is_the_callers(faults: FaultServer, client: Client) -> None:
    faults.handler = script(*(failure(429, headers={"Retry-After": "0"}) for _ in range(9)))
    with pytest.raises(ApiError) as raised:
        await client.get(PATH)
    assert raised.value.status == 429
    assert len(faults.seen) == module.TOO_MANY_TRIES


@pytest.mark.parametrize(("after", "timeout"), [("5", 2.0), ("3600", 30.0), (None, 30.0)])
async def test_429_is_told_at_once_when_waiting_is_too_long(
    faults: FaultServer, client: Client, after: str | None, timeout: float
) -> None:
    faults.handler = script(failure(429, headers={"Retry-After": after} if after else None))
    with pytest.raises(ApiError) as raised:
        await client.get(PATH, timeout=timeout)
    assert raised.value.status == 429
    assert raised.value.retry_after == (float(after) if after else None)


async def test_no_answer_in_time(faults: FaultServer, client: Client) -> None:
    faults.handler = silence
    before = counted("GET", "0")
    with pytest.raises(ApiUnreachable, match="no answer in time"):
        await client.get(PATH, timeout=0.05)
    assert counted("GET", "0") == before + 1


async def test_nobody_listens(faults: FaultServer) -> None:
    endpoint = msgspec.structs.replace(faults.endpoint(), server="http://127.0.0.1:1")

    async def source() -> Any:
        return endpoint

    async with Client(source, endpoint) as client:
        with pytest.raises(ApiUnreachable, match="GET /api/v1/namespaces/ns/pods: "):
            await client.get(PATH)
        with pytest.raises(ApiUnreachable):
            await anext(client.watch(PATH, {}, silence=1))


async def test_a_connection_that_breaks_in_the_answer(faults: FaultServer, client: Client) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport
        request.transport.abort()
        return response

    faults.handler = handler
    with pytest.raises(ApiUnreachable):
        await client.get(PATH)


def streaming(*chunks: bytes, end: bool = True) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if not end:
            await asyncio.Event().wait()
        return response

    return handler


async def lines(client: Client, *, silence: float = 30.0) -> list[bytes]:
    async with aclosing(client.watch(PATH, {"resourceVersion": "1"}, silence=silence)) as stream:
        return [line async for line in stream]


async def test_a_watch_gives_whole_lines(faults: FaultServer, client: Client) -> None:
    long = b"x" * 1_000_000
    faults.handler = streaming(b"on", b"e\ntwo\n\nth", b"ree\n", long, long + b"\n")
    assert await lines(client) == [b"one", b"two", b"", b"three", long + long]
    assert faults.seen[0].query == {"resourceVersion": "1", "watch": "true"}


async def test_a_line_without_end_is_refused(
    faults: FaultServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_LIMIT", 100_000)
    faults.handler = streaming(b"x" * 200_000)
    with pytest.raises(ApiError, match="longer than"):
        await lines(client)


async def test_a_silent_watch_is_broken_off(faults: FaultServer, client: Client) -> None:
    faults.handler = streaming(b"one\n", end=False)
    with pytest.raises(ApiUnreachable, match="no answer in time"):
        await lines(client, silence=0.05)


async def test_a_watch_that_is_refused(faults: FaultServer, client: Client) -> None:
    before = counted("WATCH", "410")
    faults.handler = script(failure(410, "Expired", "too old resource version"))
    with pytest.raises(ApiError) as raised:
        await lines(client)
    assert raised.value.gone
    assert counted("WATCH", "410") == before + 1


async def test_connections_are_kept_and_closed(faults: FaultServer) -> None:
    peers = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport
        peers.add(request.transport.get_extra_info("peername"))
        return answer({})

    faults.handler = handler
    async with faults.client() as client:
        for _ in range(5):
            await client.get(PATH)
    assert len(peers) == 1
    assert client._session is None


def test_hundreds_of_tls_connections_keep_little_memory() -> None:
    assert sslproto.SSLProtocol.max_size == module.TLS_BUFFER
