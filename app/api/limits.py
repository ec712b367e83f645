"""No header and no body is read beyond a size, and no peer is waited for beyond a time, whatever it says of them."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.broker.bounds import over
from app.broker.refusal import Reason, RefusedError
from app.broker.reports import reports
from app.settings import Limits


class BodyLimit:
    """ASGI middleware: who reads a body that is too large or too slow gets HTTPException (413 at once if it is told,
    or 408)."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self._app = app
        self._most = limits.body_bytes
        self._seconds = limits.request_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "")
        length = int(told) if told.isdecimal() else 0
        deadline = asyncio.get_running_loop().time() + self._seconds
        read, more = 0, True

        async def bounded() -> Message:
            nonlocal read, more
            message: Message = {}
            if length <= self._most:
                message = await self._in_time(receive, scope, deadline) if more else await receive()
            read += len(message.get("body", b""))
            more = message.get("more_body", False)
            if max(read, length) > self._most:
                raise _refused(scope, 413, over("body_bytes", self._most, "the body is too large"))
            return message

        await self._app(scope, bounded, send)

    async def _in_time(self, receive: Receive, scope: Scope, deadline: float) -> Message:
        try:
            async with asyncio.timeout_at(deadline):
                return await receive()
        except TimeoutError:
            refused = over("request_seconds", self._seconds, "the body has not arrived")
            raise _refused(scope, 408, refused) from None


class BoundedProtocol(H11Protocol):
    """uvicorn's, whose peers have a time for the headers of each request, and to read what is written for them.

    To be subclassed by ``bounded``.
    """

    limits: ClassVar[Limits] = Limits()

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._alarm: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_alarm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_alarm()
        self._has_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._unset_alarm()
        elif self._alarm is None:
            self._set_alarm()

    def pause_writing(self) -> None:
        """So much is written that the peer has to read first."""
        super().pause_writing()
        self._reading = self.loop.call_later(self.limits.request_seconds, self._give_up, "the answer is not read")

    def resume_writing(self) -> None:
        self._has_read()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What has come is no request, or none that ends within the limit."""
        refused = RefusedError(Reason.BAD_REQUEST, "this is not HTTP")
        if len(self.conn.trailing_data[0]) > self.limits.header_bytes:
            refused = over("header_bytes", self.limits.header_bytes, "the headers are too large")
        self._report(refused)
        super().send_400_response(refused.message)

    def _set_alarm(self) -> None:
        self._alarm = self.loop.call_later(self.limits.request_seconds, self._give_up, "the headers have not arrived")

    def _unset_alarm(self) -> None:
        if self._alarm:
            self._alarm.cancel()
            self._alarm = None

    def _give_up(self, why: str) -> None:
        self._report(over("request_seconds", self.limits.request_seconds, why))
        self.transport.abort()

    def _has_read(self) -> None:
        if self._reading:
            self._reading.cancel()
            self._reading = None

    def _report(self, refused: RefusedError) -> None:
        reports.refused(refused, call="HTTP", peer=peer_of(self.client))


def bounded(protocol: type[BoundedProtocol], limits: Limits) -> type[BoundedProtocol]:
    """The class of one server's connections: uvicorn passes nothing on to them."""
    return type(protocol.__name__, (protocol,), {"limits": limits})


def _refused(scope: Scope, status: int, refused: RefusedError) -> HTTPException:
    reports.refused(refused, call="HTTP", peer=peer_of(scope.get("client")))
    return HTTPException(status, refused.message)


def peer_of(client: tuple[str, int] | None) -> str:
    """As log lines have it; empty where it is not known."""
    return f"{client[0]}:{client[1]}" if client else ""
