"""A connection that stands leads here still when no Service does: whoever uses it is told to open another."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Farewell:
    """ASGI middleware: while this replica must not be sent requests, each answer is the last of its connection.

    What is closed while nothing is under way loses nothing; API servers do not repeat a review that was.
    """

    def __init__(self, app: ASGIApp, *, ready: Callable[[], str | None]) -> None:
        self._app = app
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def parting(message: Message) -> None:
            if message["type"] == "http.response.start" and self._ready():
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive, parting)
