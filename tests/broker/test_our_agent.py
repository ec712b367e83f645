"""The broker and our own agent, with sessions that are processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.agent.agent import Agent, Identity
from app.agent.session import ProcessRunner
from app.proto import velda_pb2
from tests.broker.wire import serving
from tests.broker.world import CPU, Pools, Status

REQUEST = velda_pb2.SessionRequest(session_id="s", pool="cpu", instance_id=1)


@asynccontextmanager
async def our_agent(port: int) -> AsyncIterator[Agent]:
    agent = Agent(Identity(agent_id="a", pool="cpu"), target=f"127.0.0.1:{port}", runner=ProcessRunner())
    running = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        agent.stop()
        await running


async def test_a_session_outlives_the_server_and_ends_with_its_agent() -> None:
    pools = Pools(CPU)
    async with serving(pools) as first, our_agent(first.port) as agent:
        status = await first.broker.RequestSession(REQUEST, wait_for_ready=True)
        assert status.status == Status.STATUS_RUNNING
        _, writer = await asyncio.open_connection(status.ssh_connection.host, status.ssh_connection.port)
        writer.close()
        await first.server.stop(0.5)
        async with serving(pools, port=first.port) as second:
            await second.seen(CPU, connected=1)
            assert (await second.broker.RequestSession(REQUEST)).ssh_connection == status.ssh_connection
            agent.stop()
            await second.seen(CPU, connected=0)
            assert second.registry.list(instance_id=1) == []


async def test_a_killed_session_ends() -> None:
    async with serving(Pools(CPU)) as plane, our_agent(plane.port):
        await plane.broker.RequestSession(REQUEST)
        await plane.broker.KillSession(velda_pb2.KillSessionRequest(instance_id=1, session_id="s"))
        await plane.seen(CPU, sessions=0)
        assert plane.registry.list(instance_id=1) == []
