"""The dashboard's routes: ``/``, its files, and the streams, which ask for the same token and rights as REST does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, ClassVar

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Send

from app import __version__
from app.api import answers
from app.api.auth import credentials
from app.api.leading import Leading, calls, enter
from app.api.messages import encode
from app.broker.clients import Clients
from app.broker.refusal import Reason, RefusedError
from app.dashboard import pages, streams
from app.dashboard.board import Board
from app.dashboard.streams import Event
from app.model.meta import NamespacedName

PREFIX = "/dashboard"
HEARTBEAT = 15.0
"""Seconds without news after which the reader is told that we are there."""


def routes(board: Board, leading: Leading) -> Sequence[BaseRoute]:
    """To be added to the HTTPS application's own."""
    files = pages.load()
    index = pages.endpoint(files.pop(pages.INDEX))
    served = [Route(f"{PREFIX}/{name}", pages.endpoint(page), name=name) for name, page in files.items()]
    return [Route("/", index, name="dashboard"), *served, Mount(PREFIX, Data(board, leading))]


class Data(FastAPI):
    """What only those may have who have the right to."""

    def __init__(self, board: Board, leading: Leading) -> None:
        super().__init__(
            openapi_url=None,
            redirect_slashes=False,
            exception_handlers=answers.HANDLERS,
        )
        self._board = board
        self._leading = leading
        for path, endpoint, name in (
            ("/me", self._me, "dashboard user"),
            ("/pools", self._pools, "dashboard pools"),
            ("/pools/{namespace}/{name}", self._pool, "dashboard pool"),
        ):
            self.add_api_route(path, endpoint, methods=["GET"], name=name, response_model=None)

    async def _me(self, request: Request) -> Response:
        """Who the reader is: ``user`` is null for who has to log in first."""
        shown = credentials(request)
        try:
            user: str | None = (await calls(self._leading).identify(shown)).username
        except RefusedError as refused:
            if refused.reason is not Reason.UNAUTHENTICATED or shown.token or shown.certificate:
                raise
            user = None
        return answers.Answer({"user": user, "version": __version__})

    async def _pools(self, request: Request) -> Response:
        return await self._stream(request, streams.overview(self._board, partial(enter, self._leading, request)))

    async def _pool(self, request: Request, namespace: str, name: str) -> Response:
        key = NamespacedName(namespace, name)
        return await self._stream(request, streams.one_pool(self._board, partial(enter, self._leading, request), key))

    async def _stream(self, request: Request, events: AsyncGenerator[Event | None]) -> Response:
        """Who is refused at once gets an answer of its own."""
        events = _watching(calls(self._leading), events)
        first = await anext(events)
        return EventStream(_written(request, first, events), media_type=EventStream.TYPE, headers=EventStream.HEADERS)


async def _watching(clients: Clients, events: AsyncGenerator[Event | None]) -> AsyncGenerator[Event | None]:
    """They take one of the places for those who watch."""
    with clients.watching():
        async with aclosing(events):
            async for event in events:
                yield event


async def _written(
    request: Request, first: Event | None, events: AsyncGenerator[Event | None]
) -> AsyncGenerator[bytes]:
    """The last one says why there are no more, unless it was time; a comment now and then says that we are there."""
    clock = asyncio.get_running_loop().time
    event, told = first, clock()
    try:
        async with aclosing(events):
            while True:
                if event or clock() >= told + HEARTBEAT:
                    told = clock()
                    yield written(*event) if event else b": here\n\n"
                event = await anext(events)
    except StopAsyncIteration:
        return
    except RefusedError as refused:
        yield written("refused", answers.note_refusal(request, refused))


class EventStream(StreamingResponse):
    """Ends what makes the events as soon as their reader has left."""

    TYPE = "text/event-stream"
    HEADERS: ClassVar = {**answers.HEADERS, "X-Accel-Buffering": "no"}
    """A proxy such as nginx is told to pass each event on at once."""

    def __init__(self, events: AsyncGenerator[bytes], **more: Any) -> None:
        super().__init__(events, **more)
        self._events = events

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            await super().stream_response(send)


def written(name: str, data: object) -> bytes:
    """As text/event-stream; JSON has no line ends."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode(data))
