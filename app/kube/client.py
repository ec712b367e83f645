"""Requests to the Kubernetes API: bytes in, bytes out, one aiohttp session. What they mean is the caller's business."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import aiohttp
import msgspec

from app import __version__
from app.kube.endpoint import Endpoint, Source
from app.kube.errors import ApiUnreachable, from_response
from app.model.meta import MANAGER
from app.obs import metrics

TIMEOUT = 30.0
"""Seconds that a request may take, its answer included."""
CONNECT_TIMEOUT = 10.0
RETRY_AFTER_MAX = 10.0
TOO_MANY_TRIES = 3
"""How often a request that was told 429 with Retry-After is sent; the last answer is the caller's."""
LINE_LIMIT = 8 << 20
"""Bytes of one watch event; etcd takes no object above 1.5 MiB."""

JSON = "application/json"
APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"

Params = Mapping[str, str]


class Client:
    """All calls raise ApiError (ApiUnreachable when there was no answer). Bodies are bytes, or what msgspec encodes."""

    def __init__(self, source: Source, endpoint: Endpoint) -> None:
        self._source = source
        self._endpoint = endpoint
        self._renewing: asyncio.Task[Endpoint] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    @property
    def server(self) -> str:
        return self._endpoint.server

    async def get(self, path: str, *, params: Params | None = None, timeout: float = TIMEOUT) -> bytes:
        return await self._request("GET", path, params=params, timeout=timeout)

    async def create(self, path: str, body: Any, *, params: Params | None = None, timeout: float = TIMEOUT) -> bytes:
        return await self._request("POST", path, body, params=params, timeout=timeout)

    async def replace(self, path: str, body: Any, *, timeout: float = TIMEOUT) -> bytes:
        return await self._request("PUT", path, body, timeout=timeout)

    async def apply(
        self, path: str, body: Any, *, manager: str = MANAGER, force: bool = True, params: Params | None = None
    ) -> bytes:
        """Server-side apply."""
        query = {"fieldManager": manager, "force": "true" if force else "false", **(params or {})}
        return await self._request("PATCH", path, body, params=query, content_type=APPLY_PATCH)

    async def merge_patch(self, path: str, body: Any) -> bytes:
        return await self._request("PATCH", path, body, content_type=MERGE_PATCH)

    async def json_patch(self, path: str, operations: Any) -> bytes:
        return await self._request("PATCH", path, operations, content_type=JSON_PATCH)

    async def delete(
        self,
        path: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> bytes:
        """Delete the object, only if it is still the one with this uid or resourceVersion."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if given := {key: value for key, value in preconditions.items() if value is not None}:
            options["preconditions"] = given
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        return await self._request("DELETE", path, options)

    async def watch(self, path: str, params: Params, *, silence: float) -> AsyncIterator[bytes]:
        """Lines of a watch, until the server ends it; ApiUnreachable when it breaks or is silent for that long."""
        endpoint = await self._current()
        limits = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=silence)
        query = {**params, "watch": "true"}
        try:
            async with self._open().get(
                endpoint.server + path, params=query, headers=_headers(endpoint), ssl=endpoint.tls, timeout=limits
            ) as answer:
                if answer.status != 200:
                    if answer.status == 401:
                        self._expire(endpoint)
                    raise from_response(answer.status, await answer.read(), answer.headers.get("Retry-After"))
                async for line in _lines(answer.content):
                    yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnreachable(f"watch of {path}: {_words(error)}") from error

    async def _request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout: float = TIMEOUT,
    ) -> bytes:
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        try:
            async with asyncio.timeout(timeout):
                return await self._send(method, path, data, params, content_type)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            metrics.API_REQUESTS.labels(method, "0").inc()
            raise ApiUnreachable(f"{method} {path}: {_words(error)}") from error

    async def _send(
        self, method: str, path: str, data: bytes | None, params: Params | None, content_type: str
    ) -> bytes:
        renewed, tries = False, 0
        while True:
            endpoint = await self._current()
            headers = _headers(endpoint)
            if data is not None:
                headers["Content-Type"] = content_type
            tries += 1
            async with self._open().request(
                method, endpoint.server + path, data=data, params=params, headers=headers, ssl=endpoint.tls
            ) as answer:
                content = await answer.read()
                status, retry_after = answer.status, answer.headers.get("Retry-After")
            metrics.API_REQUESTS.labels(method, str(status)).inc()
            if status < 300:
                return content
            error = from_response(status, content, retry_after)
            if status == 401 and not renewed:
                renewed = True
                self._expire(endpoint)
            elif status == 429 and error.retry_after is not None and tries < TOO_MANY_TRIES:
                await asyncio.sleep(min(error.retry_after, RETRY_AFTER_MAX))
            else:
                raise error

    async def _current(self) -> Endpoint:
        """The endpoint, renewed when its token is due; those who need it together renew it once."""
        endpoint = self._endpoint
        if endpoint.expires is None or time.monotonic() < endpoint.expires:
            return endpoint
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
        return await asyncio.shield(self._renewing)

    async def _renew(self) -> Endpoint:
        try:
            self._endpoint = await self._source()
            return self._endpoint
        finally:
            self._renewing = None

    def _expire(self, endpoint: Endpoint) -> None:
        if self._endpoint is endpoint:
            self._endpoint = msgspec.structs.replace(endpoint, expires=0.0)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # trust_env costs 4 to 5 times the request itself; a cluster is not reached through a proxy.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT),
                headers={"User-Agent": f"{MANAGER}/{__version__}", "Accept": JSON},
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _headers(endpoint: Endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
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
            raise ApiUnreachable(f"a watch event is longer than {LINE_LIMIT} bytes")


def _words(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
