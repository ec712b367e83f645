"""The protocol over real connections: streams, calls, statuses, cancellation and the end of the server."""

from __future__ import annotations

import asyncio

import grpc
import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration
from structlog.testing import capture_logs

from app import __version__
from app.broker import clients
from app.broker.access import Open
from app.broker.server import BrokerServer
from app.core.agents import AgentPod
from app.model.meta import NamespacedName
from app.proto import velda_pb2
from app.settings import Broker
from tests.broker.wire import BASE, WireAgent, agent, serving
from tests.broker.world import CPU, Pools, Status, execution
from tests.support.limits import refusals


def request(session_id: str = "s", *, pool: str = "cpu", **fields: object) -> velda_pb2.SessionRequest:
    return velda_pb2.SessionRequest(session_id=session_id, pool=pool, instance_id=1, **fields)  # type: ignore[arg-type]


async def test_a_session_from_request_to_end() -> None:
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        asking = asyncio.ensure_future(plane.broker.RequestSession(request(user="ada")))
        got = await worker.start()
        assert (got.session_id, got.user) == ("s", "ada")
        status = await asking
        assert status.status == Status.STATUS_RUNNING
        assert (status.ssh_connection.host, status.ssh_connection.port) == ("127.0.0.1", 22)
        await plane.broker.SetTag(velda_pb2.SetTagRequest(instance_id=1, session_id="s", tags={"a": "b"}))
        listed = await plane.broker.ListSessions(velda_pb2.ListSessionsRequest(instance_id=1))
        assert [(s.session_id, dict(s.tags)) for s in listed.sessions] == [("s", {"a": "b"})]
        await plane.broker.KillSession(velda_pb2.KillSessionRequest(instance_id=1, session_id="s"))
        assert (await worker.hear()).kill_session_request.session_id == "s"
        await worker.end(got)
        asking = asyncio.ensure_future(plane.broker.RequestSession(request("t")))
        await worker.start()
        await asking
        listed = await plane.broker.ListSessions(velda_pb2.ListSessionsRequest(instance_id=1))
        assert [s.session_id for s in listed.sessions] == ["t"]


async def test_the_server_says_its_version_and_hears_heartbeats() -> None:
    async with serving(Pools(CPU)) as plane:
        worker = WireAgent(plane.port, "a")
        assert await worker.join() == __version__
        await worker.say()
        await plane.seen(CPU, connected=1)
        await worker.vanish()


async def test_a_fault_of_ours_is_for_the_log_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*_: object) -> None:
        raise RuntimeError("of its insides")

    before = refusals("internal")
    async with serving(Pools(CPU)) as plane:
        monkeypatch.setattr(clients.Clients, "list_sessions", breaks)
        with capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as error:
            await plane.broker.ListSessions(velda_pb2.ListSessionsRequest(instance_id=1))
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert refusals("internal") == before + 1
    (line,) = lines
    assert (line["event"], line["call"], str(line["exc_info"])) == ("a call failed", "ListSessions", "of its insides")


async def test_an_agent_of_an_unknown_pool_gets_an_error() -> None:
    before = refusals("unknown_pool")
    async with serving(Pools(CPU)) as plane:
        worker = WireAgent(plane.port, "a")
        await worker.say(agent_identity=velda_pb2.AgentIdentity(agent_id="a", pool="nope"))
        assert await worker.ended() == (grpc.StatusCode.NOT_FOUND, 'there is no pool "nope"')
        await worker.vanish()
    assert refusals("unknown_pool") == before + 1


async def test_an_agent_must_come_from_its_pods_address() -> None:
    pools = Pools(CPU)
    pools.add_pod(CPU, "a")
    pools.add_pod(CPU, "liar", ip="10.0.0.9")
    async with serving(pools, authentication="pod") as plane, agent(plane):
        liar = WireAgent(plane.port, "liar")
        await liar.say(agent_identity=velda_pb2.AgentIdentity(agent_id="liar", pool="cpu"))
        code, details = await liar.ended()
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "default/liar has the address 10.0.0.9, the connection comes from 127.0.0.1" in details
        await liar.vanish()


async def test_an_agent_waits_for_its_pod_to_be_seen_and_is_drained_when_the_pod_is_deleted() -> None:
    looked = asyncio.Event()

    class Watched(Pools):
        def find_pod(self, pool: NamespacedName, name: str) -> AgentPod | None:
            looked.set()
            return super().find_pod(pool, name)

    pools = Watched(CPU)
    async with serving(pools, authentication="pod") as plane:
        worker = WireAgent(plane.port, "a")
        joining = asyncio.create_task(worker.join())
        await looked.wait()
        pools.add_pod(CPU, "a")
        plane.server.pod_changed(CPU, "a")
        await joining
        pools.add_pod(CPU, "a", terminating=True)
        plane.server.pod_changed(CPU, "a")
        assert plane.registry.pool_agents(CPU).agents["a"].draining
        await worker.vanish()


async def test_a_broken_stream_is_lost_and_a_half_closed_one_is_over() -> None:
    running = (execution("s"),)
    async with serving(Pools(CPU)) as plane:
        worker = WireAgent(plane.port, "a")
        await worker.join(running=running)
        await worker.vanish()
        await plane.seen(CPU, connected=0)
        (session,) = plane.registry.list(instance_id=1)
        assert session.status == Status.STATUS_STALE
        async with agent(plane, running=running) as again:
            (session,) = plane.registry.list(instance_id=1)
            assert session.status == Status.STATUS_RUNNING
            await again.call.done_writing()
            assert await again.ended() == (grpc.StatusCode.OK, "")
            assert plane.registry.list(instance_id=1) == []


async def test_a_second_stream_ends_the_first() -> None:
    async with serving(Pools(CPU)) as plane, agent(plane) as first, agent(plane):
        code, details = await first.ended()
        assert (code, details) == (grpc.StatusCode.ABORTED, "agent a opened another stream")
        await plane.seen(CPU, connected=1)


async def test_a_caller_that_leaves_is_taken_out_of_the_queue() -> None:
    async with serving(Pools(CPU)) as plane:
        call = plane.broker.RequestSession(request())
        await plane.seen(CPU, pending=1)
        call.cancel()
        await plane.seen(CPU, pending=0)
        late = plane.broker.RequestSession(request(), timeout=0.5)
        await plane.seen(CPU, pending=1)
        assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await plane.seen(CPU, pending=0)


async def test_a_caller_that_leaves_while_an_agent_starts_has_the_session_killed() -> None:
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        call = plane.broker.RequestSession(request())
        assert (await worker.hear()).session_request.session_id == "s"
        call.cancel()
        assert (await worker.hear()).kill_session_request.session_id == "s"


async def test_an_agent_that_does_not_answer_is_passed_over_by_the_clock() -> None:
    async with serving(Pools(CPU)) as plane, agent(plane, "silent") as silent:
        asking = asyncio.ensure_future(plane.broker.RequestSession(request(init_timeout=Duration(nanos=50_000_000))))
        await silent.hear()
        async with agent(plane, "quick") as quick:
            await quick.start()
            await asking
            assert (await silent.hear()).kill_session_request.session_id == "s"


async def test_refusals_have_their_statuses() -> None:
    async with serving(Pools(CPU)) as plane:
        for refused, code in [
            (request(pool="nope"), grpc.StatusCode.NOT_FOUND),
            (request(disallow_new_session=True), grpc.StatusCode.NOT_FOUND),
            (request(task_id="t"), grpc.StatusCode.UNIMPLEMENTED),
        ]:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await plane.broker.RequestSession(refused)
            assert error.value.code() is code
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await plane.broker.KillSession(velda_pb2.KillSessionRequest(instance_id=1, session_id="x"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await plane.broker.SetTag(velda_pb2.SetTagRequest(instance_id=1))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_over_4_mib_is_refused_and_the_server_lives() -> None:
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await plane.broker.RequestSession(request(user="x" * (4 << 20)))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        asking = asyncio.ensure_future(plane.broker.RequestSession(request()))
        await worker.start()
        await asking


async def test_at_the_end_streams_close_cleanly_and_queued_calls_may_be_tried_elsewhere() -> None:
    async with serving(Pools(CPU)) as plane, agent(plane, running=(execution("r"),)) as worker:
        queued = plane.broker.RequestSession(request())
        await plane.seen(CPU, pending=1)
        stopping = asyncio.create_task(plane.server.stop(5))
        assert await worker.ended() == (grpc.StatusCode.OK, "")
        assert await queued.code() is grpc.StatusCode.UNAVAILABLE
        await stopping
        await plane.server.stop(0)


async def test_a_port_that_is_taken_is_an_error() -> None:
    pools = Pools(CPU)
    async with serving(pools) as plane:
        settings = BASE.model_copy(update={"broker": Broker(host="127.0.0.1", port=plane.port)})
        second = BrokerServer(plane.registry, pools, access=Open(), settings=settings)
        with pytest.raises(RuntimeError):
            await second.start()


async def test_pools_show_their_allocation_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "WATCH_INTERVAL", 0.001)
    pools = Pools(CPU)
    async with serving(pools) as plane:
        (pool,) = (await plane.pools.ListPools(velda_pb2.ListPoolsRequest())).pools
        assert (pool.name, pool.autoscaler_status.last_allocation_error) == ("cpu", "")
        watch = plane.pools.WatchPoolStatus(velda_pb2.WatchPoolStatusRequest(pool="cpu"))
        first = await watch.read()
        assert isinstance(first, velda_pb2.PoolStatusNotification)
        assert not first.autoscaler_status.HasField("last_allocation_error_time")
        pools.info[CPU] = msgspec.structs.replace(
            pools.info[CPU], allocation_error="exceeded quota", allocation_error_time=1000.5
        )
        second = await watch.read()
        assert isinstance(second, velda_pb2.PoolStatusNotification)
        assert (second.pool, second.autoscaler_status.last_allocation_error) == ("cpu", "exceeded quota")
        assert second.autoscaler_status.last_allocation_error_time.ToMilliseconds() == 1_000_500
        shown = (await plane.pools.GetPool(velda_pb2.GetPoolRequest(pool="default/cpu"))).pool
        assert shown.autoscaler_status == second.autoscaler_status
        del pools.info[CPU]
        with pytest.raises(grpc.aio.AioRpcError):
            await watch.read()
        assert await watch.code() is grpc.StatusCode.NOT_FOUND
