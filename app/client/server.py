"""The REST API as calls with protobuf messages; what the server or the way to it refuses is a ClientError."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from app.client.errors import ClientError, Exit
from app.client.output import printable
from app.kube.client import Client
from app.kube.errors import ApiError, ApiUnreachable, from_status
from app.kube.errors import Status as ErrorBody
from app.proto import velda_pb2

A = TypeVar("A", bound=Message)

SESSION = "/rest/broker/v1/session"
SILENCE = 45.0
"""Seconds that a watch may be silent: the server says every 15 s that it is there."""
PULSE = 15.0
"""Seconds between two questions whether the server is there, while another call waits."""
PULSE_TIMEOUT = 10.0
"""Seconds that it has to say so."""
_DENIED = {7, 16, 401, 403}
_UNAVAILABLE = {4, 14, 502, 503, 504}
"""Codes of gRPC, which the server's errors carry, and of HTTP, for what stands before it."""
_HOPELESS = (aiohttp.ClientConnectorDNSError, aiohttp.ClientSSLError)


class Server:
    """``name`` is what messages call it. All calls raise ClientError."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name

    async def request_session(self, request: velda_pb2.SessionRequest, *, timeout: float) -> velda_pb2.ExecutionStatus:
        """Returns once the session runs; cancelled, the place in the queue is given up."""
        async with self._while_it_answers():
            return await self._post(SESSION, request, velda_pb2.ExecutionStatus(), timeout=timeout)

    @contextlib.asynccontextmanager
    async def _while_it_answers(self) -> AsyncIterator[None]:
        """A port-forward whose other end is gone takes what it is sent and stays silent: nobody would notice."""
        try:
            async with asyncio.timeout(None) as limit:
                asking = asyncio.create_task(self._ask_until_silent(limit))
                try:
                    yield
                finally:
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
        except TimeoutError as error:
            raise ClientError(Exit.UNAVAILABLE, f"{self._name} does not answer any more", passing=True) from error

    async def _ask_until_silent(self, limit: asyncio.Timeout) -> None:
        """Any answer will do."""
        while True:
            await asyncio.sleep(PULSE)
            try:
                await self._client.get("/healthz", timeout=PULSE_TIMEOUT)
            except ApiUnreachable:
                limit.reschedule(asyncio.get_running_loop().time())
                return
            except ApiError:
                continue

    async def kill_session(self, request: velda_pb2.KillSessionRequest) -> None:
        await self._post(f"{SESSION}/kill", request, Empty())

    async def list_sessions(self, request: velda_pb2.ListSessionsRequest) -> velda_pb2.ListSessionsResponse:
        query = {"instance_id": str(request.instance_id), "service_name": request.service_name}
        return await self._get(f"{SESSION}s", velda_pb2.ListSessionsResponse(), params=query)

    async def list_pools(self, request: velda_pb2.ListPoolsRequest) -> velda_pb2.ListPoolsResponse:
        return await self._get("/rest/pool", velda_pb2.ListPoolsResponse(), params={"namespace": request.namespace})

    async def watch_pool(self, pool: str) -> AsyncIterator[velda_pb2.PoolStatusNotification]:
        """The status as it is, then each change. It ends only by ClientError."""
        try:
            async for line in self._client.watch(f"/rest/pool/{quote(pool, safe='')}/watch", {}, silence=SILENCE):
                if line:
                    yield _notification(line)
        except ApiError as error:
            raise self._refusal(error) from error
        raise ClientError(Exit.UNAVAILABLE, f"{self._name}: the watch has ended", passing=True)

    async def _get(self, path: str, answer: A, **options: Any) -> A:
        try:
            return _read(await self._client.get(path, **options), answer)
        except ApiError as error:
            raise self._refusal(error) from error

    async def _post(self, path: str, request: Message, answer: A, **options: Any) -> A:
        body = json_format.MessageToJson(request, indent=None).encode()
        try:
            return _read(await self._client.create(path, body, **options), answer)
        except ApiError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: ApiError) -> ClientError:
        if isinstance(error, ApiUnreachable):
            return self._unreachable(error)
        message = printable(error.message)
        if error.status in _DENIED:
            return ClientError(Exit.DENIED, message)
        if error.status in _UNAVAILABLE:
            return ClientError(Exit.UNAVAILABLE, f"{self._name}: {message}", passing=True)
        return ClientError(Exit.FAILED, message)

    def _unreachable(self, error: ApiUnreachable) -> ClientError:
        cause = error.__cause__
        if isinstance(cause, aiohttp.ClientConnectorCertificateError):
            hint = "its certificate is not of a CA that --ca names"
            return ClientError(Exit.UNAVAILABLE, f"{self._name}: {hint}: {cause.certificate_error}")
        # aiohttp's own words show the object of its TLS context.
        words = cause.os_error if isinstance(cause, aiohttp.ClientConnectorError) else error
        passing = not isinstance(cause, _HOPELESS)
        return ClientError(Exit.UNAVAILABLE, f"{self._name} does not answer: {words}", passing=passing)


class _Line(msgspec.Struct, frozen=True):
    """Of a stream, as grpc-gateway writes it."""

    result: msgspec.Raw = msgspec.Raw()
    error: ErrorBody | None = None


def _notification(line: bytes) -> velda_pb2.PoolStatusNotification:
    try:
        found = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError as error:
        raise _not_ours(error) from error
    if found.error:
        raise from_status(found.error, code=0)
    return _read(bytes(found.result), velda_pb2.PoolStatusNotification())


def _read(body: bytes, answer: A) -> A:
    """Fields that we do not know are those of a newer server."""
    try:
        return json_format.Parse(body, answer, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError) as error:
        raise _not_ours(error) from error


def _not_ours(error: Exception) -> ClientError:
    said = printable(str(error))[:200]
    return ClientError(Exit.FAILED, f"this is no velda-apiserver: its answer is not understood: {said}")
