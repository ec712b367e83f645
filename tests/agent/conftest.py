"""A broker of a few lines that an agent can join: the test reads what arrives and says what is sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from app.proto.velda_pb2 import AgentUpdateRequest, AgentUpdateResponse, ServerInfo

TIMEOUT = 20.0

Context = grpc.aio.ServicerContext[AgentUpdateRequest, AgentUpdateResponse]


class Stream:
    """One agent's stream as the server holds it; ``None`` among the messages is the agent's half-close."""

    def __init__(self, context: Context) -> None:
        self.received: asyncio.Queue[AgentUpdateRequest | None] = asyncio.Queue()
        self.closing: asyncio.Future[grpc.StatusCode] = asyncio.get_running_loop().create_future()
        self.metadata = dict(context.invocation_metadata() or ())
        self._context = context

    async def next(self) -> AgentUpdateRequest:
        message = await asyncio.wait_for(self.received.get(), TIMEOUT)
        assert message is not None, "the agent half-closed the stream"
        return message

    async def half_closed(self) -> None:
        assert await asyncio.wait_for(self.received.get(), TIMEOUT) is None

    async def send(self, **fields: object) -> None:
        await self._context.write(AgentUpdateResponse(**fields))  # type: ignore[arg-type]

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        if not self.closing.done():
            self.closing.set_result(code)


class FakeBroker:
    """Answers each first message with server_info, refuses with ``refusal``, or keeps ``silent``."""

    def __init__(self) -> None:
        self.refusal: grpc.StatusCode | None = None
        self.refused = asyncio.Event()
        self.silent = False
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()

    async def update(self, request_iterator: AsyncIterator[AgentUpdateRequest], context: Context) -> None:
        if self.refusal:
            self.refused.set()
            await context.abort(self.refusal, "no such pool")
        stream = Stream(context)
        reading = asyncio.create_task(self._read(request_iterator, stream))
        if not self.silent:
            await stream.send(server_info=ServerInfo(version="test"))
        self.streams.put_nowait(stream)
        reading.add_done_callback(lambda _: stream.end())
        await stream.closing
        reading.cancel()
        if stream.closing.result() != grpc.StatusCode.OK:
            await context.abort(stream.closing.result(), "the test says so")

    async def _read(self, requests: AsyncIterator[AgentUpdateRequest], stream: Stream) -> None:
        async for message in requests:
            stream.received.put_nowait(message)
        stream.received.put_nowait(None)

    async def stream(self) -> Stream:
        """The next stream that an agent opens."""
        return await asyncio.wait_for(self.streams.get(), TIMEOUT)


@contextlib.asynccontextmanager
async def serve(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[tuple[FakeBroker, str]]:
    """The broker and its address."""
    broker, server = FakeBroker(), grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        broker.update,
        request_deserializer=AgentUpdateRequest.FromString,
        response_serializer=AgentUpdateResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("velda.BrokerService", {"AgentUpdate": handler}),)
    )
    host = "127.0.0.1:0"
    port = server.add_secure_port(host, credentials) if credentials else server.add_insecure_port(host)
    await server.start()
    try:
        yield broker, f"localhost:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
async def broker() -> AsyncIterator[tuple[FakeBroker, str]]:
    async with serve() as served:
        yield served
