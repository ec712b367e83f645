"""The client calls over REST: the routes and shapes that grpc-gateway gives the protocol, and their OpenAPI document.

A pool is named in the path as everywhere, ``NAME`` or ``NAMESPACE/NAME``, with the slash as it is or as %2F. What ends
in ``/watch`` is a watch: a pool of that very name is reached by its name alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, NoReturn, TypeVar

from fastapi import FastAPI
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from app import __version__
from app.api import answers, openapi
from app.api.answers import HEADERS, JSON, Answer
from app.api.leading import Leading, enter
from app.api.messages import M, encode, read, read_query, write
from app.broker.access import Caller
from app.broker.clients import Clients
from app.broker.refusal import RefusedError
from app.proto import velda_pb2

PREFIX = "/rest"
HEARTBEAT = 15.0
"""Seconds of silence in a watch, at most."""

T = TypeVar("T")


class Call(NamedTuple):
    """An RPC with one answer, and its route."""

    rpc: str
    method: str
    path: str
    request: type[Message]
    answer: type[Message]
    run: Callable[[Clients, Caller, Any], Coroutine[Any, Any, Message]]


async def _kill_session(clients: Clients, caller: Caller, request: velda_pb2.KillSessionRequest) -> Empty:
    await clients.kill_session(caller, request)
    return Empty()


async def _set_tag(clients: Clients, caller: Caller, request: velda_pb2.SetTagRequest) -> velda_pb2.SetTagResponse:
    await clients.set_tag(caller, request)
    return velda_pb2.SetTagResponse()


_SESSION, _SESSIONS, _POOL = "/broker/v1/session", "/broker/v1/sessions", "/pool/{pool:path}"
CALLS = (
    Call(
        "RequestSession",
        "POST",
        _SESSION,
        velda_pb2.SessionRequest,
        velda_pb2.ExecutionStatus,
        Clients.request_session,
    ),
    Call("KillSession", "POST", f"{_SESSION}/kill", velda_pb2.KillSessionRequest, Empty, _kill_session),
    Call("SetTag", "POST", f"{_SESSION}/set-tag", velda_pb2.SetTagRequest, velda_pb2.SetTagResponse, _set_tag),
    Call(
        "ListSessions",
        "GET",
        _SESSIONS,
        velda_pb2.ListSessionsRequest,
        velda_pb2.ListSessionsResponse,
        Clients.list_sessions,
    ),
    Call("ListPools", "GET", "/pool", velda_pb2.ListPoolsRequest, velda_pb2.ListPoolsResponse, Clients.list_pools),
    Call("GetPool", "GET", _POOL, velda_pb2.GetPoolRequest, velda_pb2.GetPoolResponse, Clients.get_pool),
)
_WATCH = velda_pb2.WatchPoolStatusRequest, velda_pb2.PoolStatusNotification


class RestApi(FastAPI):
    """To be mounted at PREFIX."""

    def __init__(self, leading: Leading) -> None:
        super().__init__(
            title="velda-apiserver",
            version=__version__,
            openapi_url=None,
            servers=[{"url": PREFIX}],
            redirect_slashes=False,
            exception_handlers=answers.HANDLERS,
        )
        self._leading = leading
        watch = openapi.described("WatchPoolStatus", "GET", *_WATCH, stream=True)
        self.add_api_route(f"{_POOL}/watch", self._watch, methods=["GET"], **watch)
        for call in CALLS:
            described = openapi.described(call.rpc, call.method, call.request, call.answer)
            self.add_api_route(call.path, self._handler(call), methods=[call.method], **described)

    def openapi(self) -> dict[str, Any]:
        if not self.openapi_schema:
            messages = [message for call in CALLS for message in (call.request, call.answer)]
            self.openapi_schema = openapi.completed(super().openapi(), *messages, *_WATCH)
        return self.openapi_schema

    def _handler(self, call: Call) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            clients, caller = await enter(self._leading, request)
            message = await _message(request, call.request())
            return Answer(write(await _while_there(request, call.run(clients, caller, message))))

        return handle

    async def _watch(self, request: Request) -> Response:
        clients, caller = await enter(self._leading, request)
        notifications = clients.watch_pool(caller, await _message(request, velda_pb2.WatchPoolStatusRequest()))
        first = await anext(notifications)  # a refusal is an answer of its own
        return StreamingResponse(_lines(request, first, notifications), media_type=JSON, headers=HEADERS)


async def _message(request: Request, message: M) -> M:
    """From the body, or else from the query and the path, which has the last word."""
    if request.method == "POST":
        return read(await request.body(), message)
    read_query(request.query_params, message)
    for name, value in request.path_params.items():
        setattr(message, name, value)
    return message


async def _lines(
    request: Request,
    first: velda_pb2.PoolStatusNotification,
    others: AsyncIterator[velda_pb2.PoolStatusNotification],
) -> AsyncIterator[bytes]:
    """One line a notification, made when the reader has room for it; the last one says why there are no more.

    An empty line says that there is nothing new, so that both sides notice when the way between them is gone.
    """
    try:
        yield encode({"result": write(first)}) + b"\n"
        async for notification in _or_pauses(others):
            yield encode({"result": write(notification)}) + b"\n" if notification else b"\n"
    except RefusedError as refused:
        yield encode({"error": answers.note_refusal(request, refused)}) + b"\n"


async def _or_pauses(items: AsyncIterator[T]) -> AsyncIterator[T | None]:
    """The items, and None whenever there was none for HEARTBEAT seconds."""
    coming = asyncio.ensure_future(anext(items))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=HEARTBEAT)
            if not done:
                yield None
                continue
            try:
                yield coming.result()
            except StopAsyncIteration:
                return
            coming = asyncio.ensure_future(anext(items))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


async def _while_there(request: Request, call: Coroutine[Any, Any, T]) -> T:
    """The call's result; it is cancelled, and ClientDisconnect raised, if the client leaves before."""
    calling, leaving = asyncio.create_task(call), asyncio.create_task(_leave(request))
    try:
        await asyncio.wait((calling, leaving), return_when=asyncio.FIRST_COMPLETED)
        return calling.result() if calling.done() else leaving.result()
    finally:
        calling.cancel()
        leaving.cancel()
        await asyncio.gather(calling, leaving, return_exceptions=True)


async def _leave(request: Request) -> NoReturn:
    """Raises ClientDisconnect when the client does."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect
