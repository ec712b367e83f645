"""The end of a stream as gRPC reports it: end of reading first, and turns of the loop later that it broke."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import grpc
import pytest

from app.broker.bounds import Bounds
from app.broker.identity import Gatekeeper
from app.broker.refusal import Reason, RefusedError
from app.broker.stream import AgentStream, Context
from app.proto import velda_pb2
from app.settings import Limits
from tests.broker.world import CPU, World, execution

LIMITS = Limits()


class Silence:
    """A context whose peer says some messages, then is done with it."""

    def __init__(self, *messages: velda_pb2.AgentUpdateRequest, then: Any = grpc.aio.EOF) -> None:
        self.messages = list(messages)
        self.then = then
        self.over = asyncio.Event()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def read(self) -> Any:
        if self.messages:
            return self.messages.pop(0)
        self.over.set()
        return self.then if self.then is grpc.aio.EOF else await self.then.wait()

    async def write(self, message: velda_pb2.AgentUpdateResponse) -> None:
        pass


def run(world: World, context: Silence, limits: Limits = LIMITS) -> asyncio.Task[None]:
    gatekeeper = Gatekeeper(world.pools, authentication="none")
    return asyncio.create_task(
        AgentStream(world.registry, gatekeeper, cast(Context, context), bounds=Bounds(limits)).run()
    )


def joining() -> velda_pb2.AgentUpdateRequest:
    identity = velda_pb2.AgentIdentity(agent_id="a", pool="cpu")
    return velda_pb2.AgentUpdateRequest(agent_identity=identity, current_executions=[execution("s")])


async def test_a_half_close_ends_the_sessions_and_the_stream() -> None:
    world = World()
    await run(world, Silence(joining()))
    assert world.statuses() == {}


async def test_a_break_is_told_from_a_half_close_even_when_the_loop_is_slow() -> None:
    world, context = World(), Silence(joining())
    running = run(world, context)
    await context.over.wait()
    for _ in range(4):
        time.sleep(0.1)  # noqa: ASYNC251  so long that each timer is due in the next turn
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert world.statuses() == {"s": "STALE"}


async def test_a_stream_that_says_nothing_is_ended() -> None:
    world = World()
    with pytest.raises(RefusedError, match=r"has not said whose it is.*\(limits.request_seconds: 0\)") as refused:
        await run(world, Silence(then=asyncio.Event()), LIMITS.model_copy(update={"request_seconds": 0}))
    assert refused.value.reason is Reason.LIMIT


async def test_a_stream_that_ends_before_it_begins_is_nobody() -> None:
    world = World()
    await run(world, Silence())
    assert world.registry.pool_agents(CPU).agents == {}
