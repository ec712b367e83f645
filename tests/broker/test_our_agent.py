"""The broker and our own agent, with sessions that are processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.agent import agent as agents
from app.agent.agent import Agent, Identity
from app.agent.session import ProcessRunner
from app.kube import answers
from app.proto import velda_pb2
from tests.broker.wire import serving
from tests.broker.world import CPU, Pools, Status
from tests.support.agents import LoopRunner
from tests.support.limits import refusals

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


class Reviews:
    """An API server that says whose a token is once an agent was told to come again; each token is its pod's name."""

    def __init__(self) -> None:
        self.under_way = self.most = 0
        self._refused = refusals("not_checked")

    async def __call__(self, token: str) -> Mapping[str, Any]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            while refusals("not_checked") == self._refused:  # noqa: ASYNC110  a count has no event
                await asyncio.sleep(0.005)
        finally:
            self.under_way -= 1
        about = {"pod-name": [token], "pod-uid": [f"uid of {token}"]}
        extra = {f"authentication.kubernetes.io/{key}": value for key, value in about.items()}
        return {"username": "system:serviceaccount:default:default", "extra": extra}


async def test_more_agents_than_may_be_asked_about_at_once_all_come_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 5,000 do when a server is new; who is told to come again does so in its own time."""
    for limit, value in (("WAITING", 8), ("AT_ONCE", 2)):
        monkeypatch.setattr(answers, limit, value)
    for delay, seconds in (("BACKOFF_FIRST", 0.05), ("BACKOFF_MAX", 0.5)):
        monkeypatch.setattr(agents, delay, seconds)
    pools, reviews, names = Pools(CPU), Reviews(), [f"a{number}" for number in range(60)]
    async with asyncio.timeout(60), serving(pools, authentication="token", review=reviews) as plane:
        dialing = []
        for name in names:
            pools.add_pod(CPU, name)
            (token := tmp_path / name).write_text(name)
            identity = Identity(agent_id=name, pool="cpu")
            target = f"127.0.0.1:{plane.port}"
            dialing.append(Agent(identity, target=target, runner=LoopRunner(), token=token))
        running = [asyncio.create_task(agent.run()) for agent in dialing]
        await plane.seen(CPU, connected=len(names))
        for agent in dialing:
            agent.stop()
        await asyncio.gather(*running)
    assert reviews.most == 2
