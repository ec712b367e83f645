"""Sessions outlive servers: one real server after the other, and clients that repeat what was not answered."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from app.proto import velda_pb2
from tests.broker.wire import Plane, agent, serving
from tests.broker.world import CPU, Pools, Status, execution


@pytest.fixture
def pools() -> Pools:
    """With the pods a and b, whose agents every leader waits for."""
    pools = Pools(CPU)
    pools.add_pod(CPU, "a")
    pools.add_pod(CPU, "b")
    return pools


def ask(plane: Plane, session_id: str = "s") -> asyncio.Future[velda_pb2.ExecutionStatus]:
    request = velda_pb2.SessionRequest(session_id=session_id, pool="cpu", instance_id=1)
    return asyncio.ensure_future(plane.broker.RequestSession(request))


async def test_a_request_repeated_to_the_next_leader_gets_the_session_that_runs(pools: Pools) -> None:
    busy = (execution("x"),)
    async with (
        serving(pools, authentication="pod") as first,
        agent(first, "b", running=busy),
        agent(first, "a") as worker,
    ):
        asking = ask(first)
        await worker.start()
        answer = await asking
    async with serving(pools, authentication="pod") as second:
        early = ask(second)
        await second.seen(CPU, pending=1)
        async with agent(second, "b") as free:
            await second.seen(CPU, connected=1, pending=1)
            async with agent(second, "a", running=(execution("s"),)):
                late = ask(second)
                assert (await early).status == (await late).status == Status.STATUS_RUNNING
                assert (await early).session_id == answer.session_id
                assert [session.session_id for session in second.registry.list(instance_id=1)] == ["s"]
                other = ask(second, "t")
                assert (await free.start()).session_id == "t"  # and nothing before it
                await other


async def test_a_queued_request_of_a_server_that_goes_may_be_repeated(pools: Pools) -> None:
    async with serving(pools, authentication="pod") as first:
        asking = ask(first)
        await first.seen(CPU, pending=1)
        await first.server.stop(1)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await asking
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert error.value.details() == "the server is stopping, try again"
    async with serving(pools, authentication="pod") as second:
        asking, again = ask(second), ask(second)
        await second.seen(CPU, pending=1)
        async with (
            agent(second, "b", running=(execution("x"),)),
            agent(second, "a") as worker,
        ):
            assert (await worker.start()).session_id == "s"
            assert (await asking) == (await again)


async def test_a_session_that_may_come_back_is_not_said_to_be_unknown(pools: Pools) -> None:
    kill = velda_pb2.KillSessionRequest(instance_id=1, session_id="s")
    async with serving(pools, authentication="pod") as plane:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await plane.broker.KillSession(kill)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        async with agent(plane, "a", running=(execution("s"),)) as worker:
            await plane.broker.KillSession(kill)
            assert (await worker.hear()).kill_session_request.session_id == "s"


async def test_of_a_session_whose_pod_is_gone_it_is_told_that_it_has_ended(pools: Pools) -> None:
    async with serving(pools, authentication="pod") as plane, agent(plane, "b"):
        async with agent(plane, "a", running=(execution("s"),)):
            pass
        await plane.seen(CPU, connected=1)
        assert (await ask(plane)).status == Status.STATUS_STALE
        plane.registry.forget(CPU, "a")  # as the controller does once killUnknownAfterSecond is over
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await plane.broker.KillSession(velda_pb2.KillSessionRequest(instance_id=1, session_id="s"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert error.value.details() == 'instance 1 has no session "s"; session "s" has ended: its agent is gone'
