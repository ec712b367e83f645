"""Requests to the Kubernetes API: bytes in, bytes out, one aiohttp session. What they mean is the caller's business."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sys
import time
from asyncio import sslproto
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec
from opentelemetry.trace import SpanKind

from app import __version__
from app.kube.credentials import Credentials
from app.kube.endpoint import Endpoint, Source
from app.kube.errors import ApiError, ApiUnreachable, from_response
from app.model.meta import MANAGER
from app.obs import metrics, spans

TIMEOUT = 30.0
"""Seconds that a request may take, its answer included."""
CONNECT_TIMEOUT = 10.0
RETRY_AFTER_MAX = 10.0
"""Seconds of a Retry-After that a request waits by itself; a longer one is the caller's."""
TOO_MANY_TRIES = 3
"""How often a request that was told 429 with Retry-After is sent; the last answer is the caller's."""
LINGERING_TLS = sys.version_info < (3, 12, 8)
"""Whether asyncio waits for the other side's farewell without end (python/cpython#118960)."""
IDLE_CONNECTION = 80.0
"""Seconds that a connection is kept for the next request; the API server closes it after 90. A new one costs both
sides more than a request.
"""
LINE_LIMIT = 8 << 20
"""Bytes of one watch event; etcd takes no object above 1.5 MiB."""

TLS_BUFFER = 32 << 10
"""Bytes that each TLS connection keeps to read into, 256 KiB by default: most of our memory with hundreds in flight."""
sslproto.SSLProtocol.max_size = TLS_BUFFER

JSON = "application/json"
APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"
"""What to accept of an object of which no more is read; an error comes as it always does."""

Params = Mapping[str, str]


class _Call(NamedTuple):
    method: str
    path: str
    body: bytes | None
    params: Params | None
    content_type: str
    accept: str = JSON


class Client:
    """All calls raise ApiError (ApiUnreachable when there was no answer). Bodies are bytes, or what msgspec encodes.

    A 429 with Retry-After is waited for and tried again here, unless the caller is not ``patient``: for whom so many
    calls are one concern, an overloaded API server is news.
    """

    def __init__(self, source: Source, endpoint: Endpoint) -> None:
        self._credentials = Credentials(source, endpoint)
        self._session: aiohttp.ClientSession | None = None
        self._may_write: Callable[[], bool] = lambda: True

    def fenced(self, may_write: Callable[[], bool]) -> Client:
        """With our connections; raises ApiUnreachable, with nothing sent, for what would write when that is False."""
        self._open()
        fenced = copy.copy(self)
        fenced._may_write = may_write
        return fenced

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._credentials.close()
        if self._session:
            # CPython 3.11.2, which Debian 12 has, aborts a TLS transport that has gone already; by then all is closed.
            with contextlib.suppress(AttributeError):
                await self._session.close()
            self._session = None

    async def authorization(self) -> str:
        """The header with our own credentials; empty if they are none that a header carries."""
        return (await self._credentials.current()).authorization

    async def get(self, path: str, *, params: Params | None = None, timeout: float = TIMEOUT) -> bytes:
        return await self._request("GET", path, params=params, timeout=timeout)

    async def create(
        self,
        path: str,
        body: Any,
        *,
        params: Params | None = None,
        timeout: float = TIMEOUT,
        patient: bool = True,
        accept: str = JSON,
    ) -> bytes:
        return await self._request("POST", path, body, params=params, timeout=timeout, patient=patient, accept=accept)

    async def replace(self, path: str, body: Any, *, timeout: float = TIMEOUT) -> bytes:
        return await self._request("PUT", path, body, timeout=timeout)

    async def apply(
        self, path: str, body: Any, *, manager: str = MANAGER, force: bool = True, params: Params | None = None
    ) -> bytes:
        """Server-side apply."""
        query = {"fieldManager": manager, "force": "true" if force else "false", **(params or {})}
        return await self._request("PATCH", path, body, params=query, content_type=APPLY_PATCH)

    async def merge_patch(self, path: str, body: Any, *, timeout: float = TIMEOUT, patient: bool = True) -> bytes:
        return await self._request("PATCH", path, body, content_type=MERGE_PATCH, timeout=timeout, patient=patient)

    async def json_patch(self, path: str, operations: Any) -> bytes:
        return await self._request("PATCH", path, operations, content_type=JSON_PATCH)

    async def delete(
        self,
        path: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
        patient: bool = True,
    ) -> bytes:
        """Delete the object, only if it is still the one with this uid or resourceVersion."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if given := {key: value for key, value in preconditions.items() if value is not None}:
            options["preconditions"] = given
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        return await self._request("DELETE", path, options, patient=patient)

    async def watch(self, path: str, params: Params, *, silence: float) -> AsyncGenerator[bytes]:
        """Lines of a watch, until the server ends it; ApiUnreachable when it breaks or is silent for that long."""
        limits = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=silence)
        call = _Call("GET", path, None, {**params, "watch": "true"}, JSON)
        try:
            endpoint = await self._credentials.current()
            async with self._send(call, endpoint, timeout=limits) as answer:
                metrics.API_REQUESTS.labels("WATCH", str(answer.status)).inc()
                if answer.status == 401:
                    self._credentials.refused(endpoint)
                if answer.status != 200:
                    raise from_response(answer.status, await answer.read(), answer.headers.get("Retry-After"))
                try:
                    async for line in _lines(answer.content):
                        yield line
                finally:
                    _abort(answer)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            metrics.API_REQUESTS.labels("WATCH", "0").inc()
            raise _unreachable(call, error) from error

    async def _request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout: float = TIMEOUT,
        patient: bool = True,
        accept: str = JSON,
    ) -> bytes:
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        call = _Call(method, path, data, params, content_type, accept)
        try:
            async with asyncio.timeout(timeout) as limit:
                return await self._answer(call, limit, tries=TOO_MANY_TRIES if patient else 1)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            metrics.API_REQUESTS.labels(method, "0").inc()
            raise _unreachable(call, error) from error

    async def _answer(self, call: _Call, limit: asyncio.Timeout, *, tries: int) -> bytes:
        renewed = False
        while True:
            endpoint = await self._credentials.current()
            if call.method != "GET" and not self._may_write():
                raise ApiUnreachable(f"{call.method} {call.path} was not sent: it may not be ours to do any more")
            begun = time.perf_counter()
            about = {"http.request.method": call.method, "url.path": call.path}
            with spans.span(call.method, about, kind=SpanKind.CLIENT) as span:
                async with self._send(call, endpoint) as answer:
                    content = await answer.read()
                span.set_attribute("http.response.status_code", answer.status)
            metrics.API_SECONDS.labels(call.method).observe(time.perf_counter() - begun)
            metrics.API_REQUESTS.labels(call.method, str(answer.status)).inc()
            if answer.status < 300:
                return content
            tries -= 1
            error = from_response(answer.status, content, answer.headers.get("Retry-After"))
            if answer.status == 401 and not renewed:
                renewed = True
                self._credentials.refused(endpoint)
            elif answer.status == 429 and tries > 0 and _fits(error.retry_after, limit):
                await asyncio.sleep(error.retry_after or 0.0)
            else:
                raise error

    def _send(
        self, call: _Call, endpoint: Endpoint, **options: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = {"Accept": call.accept}
        if endpoint.authorization:
            headers["Authorization"] = endpoint.authorization
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        return self._open().request(
            call.method,
            endpoint.server + call.path,
            data=call.body,
            params=call.params,
            headers=headers,
            ssl=endpoint.tls,
            server_hostname=endpoint.server_name,
            proxy=endpoint.proxy,
            **options,
        )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # trust_env costs 4 to 5 times the request itself.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=IDLE_CONNECTION, enable_cleanup_closed=LINGERING_TLS
                ),
                timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT),
                headers={"User-Agent": f"{MANAGER}/{__version__}"},
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _fits(wait: float | None, limit: asyncio.Timeout) -> bool:
    """Whether the server named a time to wait that leaves time for an answer."""
    if wait is None or wait > RETRY_AFTER_MAX:
        return False
    end = limit.when()
    return end is None or asyncio.get_running_loop().time() + wait < end


def _abort(answer: aiohttp.ClientResponse) -> None:
    """Close the connection of an answer that is not at its end, without the farewell of TLS that may never come."""
    if answer.connection and answer.connection.transport:
        answer.connection.transport.abort()


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    """Whole lines of any length up to LINE_LIMIT; aiohttp's own readline stops at 128 KiB."""
    parts: list[bytes] = []
    size = 0
    async for chunk in content.iter_any():
        *whole, rest = chunk.split(b"\n")
        for end in whole:
            yield b"".join((*parts, end))
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > LINE_LIMIT:
            raise ApiError(413, "TooLarge", f"a watch event is longer than {LINE_LIMIT} bytes")


def _unreachable(call: _Call, error: BaseException) -> ApiUnreachable:
    words = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return ApiUnreachable(f"{call.method} {call.path}: {words}")
