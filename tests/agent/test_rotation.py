"""Agents with certificates outlive the CA that issued them: whoever dials after a change gets another one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.agent.agent import Agent, Identity
from app.agent.config import AgentConfig
from app.agent.credentials import Credentials
from app.model.meta import NamespacedName
from app.proto import velda_pb2
from certs.authority import KeyPair, issue_authority, issue_leaf
from tests.agent.issuing import AUTHORITY, NOW, Pod
from tests.agent.issuing import serving as issuing
from tests.broker.wire import Plane, Tls, serving
from tests.broker.world import Pools
from tests.support.agents import LoopRunner

SUCCESSOR = issue_authority(now=NOW)
POOL, POD = NamespacedName("team", "cpu"), "cpu-1"
TIMEOUT = 30.0


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


@asynccontextmanager
async def broker(pools: Pools, leaf_of: KeyPair, *bundle: KeyPair, port: int = 0) -> AsyncIterator[Plane]:
    trusted = b"".join(authority.certificate for authority in bundle)
    tls = Tls(issue_leaf(leaf_of, names=["127.0.0.1"], now=NOW), trusted, trusted)
    async with serving(pools, authentication="mtls", tls=tls, port=port) as plane:
        yield plane


@asynccontextmanager
async def agent(pod: Pod, port: int) -> AsyncIterator[Agent]:
    settings = AgentConfig(
        f"127.0.0.1:{port}", client_certificate=str(pod.home / "tls.crt"), client_key=str(pod.home / "tls.key")
    )
    agent = Agent(
        Identity(agent_id=POD, pool="cpu"),
        target=settings.broker_address,
        runner=LoopRunner(),
        credentials=Credentials(settings, ca=pod.ca, token=pod.token),
    )
    running = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def publish(pod: Pod, *authorities: KeyPair) -> None:
    """As the kubelet does for a ConfigMap."""
    pod.ca.write_bytes(b"".join(authority.certificate for authority in authorities))


@pytest.fixture
def pools() -> Pools:
    pools = Pools(POOL)
    pools.add_pod(POOL, POD, uid="u-1")
    return pools


async def test_an_agent_comes_back_with_its_session_when_its_ca_has_gone(pod: Pod, pools: Pools) -> None:
    async with issuing() as url:
        assert await pod.ask(url) == 0
    async with asyncio.timeout(TIMEOUT), contextlib.AsyncExitStack() as stack:
        async with broker(pools, AUTHORITY, AUTHORITY) as plane:
            await stack.enter_async_context(agent(pod, plane.port))
            await plane.seen(POOL, connected=1)
            started: asyncio.Future[object] = asyncio.Future()
            plane.registry.request(velda_pb2.SessionRequest(pool="cpu", session_id="s"), started.set_result)
            await started
        publish(pod, SUCCESSOR)
        url = await stack.enter_async_context(issuing(authority=SUCCESSOR, vouched_by=SUCCESSOR))
        (pod.home / "url").write_text(url)
        async with broker(pools, SUCCESSOR, SUCCESSOR, port=plane.port) as plane:
            await plane.seen(POOL, connected=1, sessions=1)


async def test_while_both_are_taken_and_no_other_can_be_got_the_old_certificate_serves(
    pod: Pod, pools: Pools, caplog: pytest.LogCaptureFixture
) -> None:
    async with issuing() as url:
        assert await pod.ask(url) == 0
    publish(pod, SUCCESSOR, AUTHORITY)
    async with (
        asyncio.timeout(TIMEOUT),
        broker(pools, AUTHORITY, SUCCESSOR, AUTHORITY) as plane,
        agent(pod, plane.port),
    ):
        await plane.seen(POOL, connected=1)
    assert "no certificate of the new CA yet" in caplog.text


async def test_where_nothing_has_changed_nothing_is_asked_for(pod: Pod, pools: Pools) -> None:
    async with issuing() as url:
        assert await pod.ask(url) == 0
    before = sorted(path.read_bytes() for path in pod.home.iterdir())
    async with asyncio.timeout(TIMEOUT), broker(pools, AUTHORITY, AUTHORITY) as plane:
        pod.token.unlink()  # with it a request would fail, and be told
        async with agent(pod, plane.port):
            await plane.seen(POOL, connected=1)
    assert sorted(path.read_bytes() for path in pod.home.iterdir()) == before
