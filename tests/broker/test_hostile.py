"""Noise and nonsense at the gRPC port: nothing changes, nothing breaks, nothing fills the memory or the log."""

from __future__ import annotations

import asyncio
import random
import resource
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.broker.bounds import Bounds
from app.broker.refusal import RefusedError
from app.broker.reports import LINES, LINES_PER_SECOND
from app.proto import velda_pb2
from app.settings import Limits
from tests.broker.wire import WireAgent, agent, serving
from tests.broker.world import CPU, Pools, Status, World

STREAMS = 10_000
AT_ONCE = 100
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
SECONDS = 60.0
"""In which a peer that talks nonsense is sent away; gRPC takes milliseconds."""


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


async def say(port: int, said: bytes) -> bytes:
    """What the server answers, until it closes the connection or we do so since it has stopped to answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        writer.write_eof()
        async with asyncio.timeout(SECONDS):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def nonsense(chance: random.Random) -> bytes:
    """Half of it comes as far as HTTP/2's frames."""
    noise = chance.randbytes(chance.randrange(1, 400))
    if chance.random() < 0.5:
        return noise
    frames = [
        frame(chance.randrange(12), chance.randbytes(chance.randrange(40)), flags=chance.randrange(256), stream=stream)
        for stream in chance.choices((0, 1, 3, 2**31 - 1), k=3)
    ]
    return PREFACE + frame(SETTINGS) + b"".join(frames) + noise


async def test_ten_thousand_streams_of_noise() -> None:
    chance = random.Random(5)
    loop = asyncio.get_running_loop()
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        before = plane.registry.pool_agents(CPU)
        with structlog.testing.capture_logs() as logs:
            began, memory = loop.time(), resident_kib()
            for _ in range(STREAMS // AT_ONCE):
                await asyncio.gather(*(say(plane.port, nonsense(chance)) for _ in range(AT_ONCE)))
            seconds, memory = loop.time() - began, resident_kib() - memory
        assert plane.registry.pool_agents(CPU) == before
        assert plane.registry.list(instance_id=0) == plane.registry.list(instance_id=1) == []
        assert len(logs) <= LINES + LINES_PER_SECOND * (seconds + 1)
        assert memory < 128 * 1024
        asking = asyncio.ensure_future(plane.broker.RequestSession(velda_pb2.SessionRequest(pool="cpu")))
        await worker.start()
        assert (await asking).status == Status.STATUS_RUNNING


async def test_messages_of_noise_in_good_frames(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(6)
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        before = plane.registry.pool_agents(CPU)
        for method in ("RequestSession", "KillSession", "SetTag", "ListSessions"):
            call: Any = plane.channel.unary_unary(f"/velda.BrokerService/{method}")
            for _ in range(100):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await call(b"\xff" + chance.randbytes(chance.randrange(200)))
                assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        stream: Any = plane.channel.stream_stream("/velda.BrokerService/AgentUpdate")()
        await stream.write(b"\xff\xff\xff")
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert plane.registry.pool_agents(CPU) == before
        assert plane.registry.list(instance_id=0) == []
        assert not caplog.records  # gRPC would log each with a traceback
        asking = asyncio.ensure_future(plane.broker.RequestSession(velda_pb2.SessionRequest(pool="cpu")))
        await worker.start()
        await asking


async def test_who_pings_without_end_is_sent_away() -> None:
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        answer = await say(plane.port, PREFACE + frame(SETTINGS) + frame(PING, b"12345678") * 20)
        assert b"too_many_pings" in answer
        await worker.say()
        assert plane.registry.pool_agents(CPU).agents["a"].connected


TEXT = st.text(max_size=300) | st.just("x" * 100_000)
INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
SECONDS_AND_NANOS = st.builds(Duration, seconds=INT64, nanos=INT32)
REQUESTS = st.builds(
    velda_pb2.SessionRequest,
    session_id=TEXT,
    instance_id=INT64,
    user=TEXT,
    pool=st.just("cpu") | TEXT,
    init_timeout=SECONDS_AND_NANOS,
    idle_timeout=SECONDS_AND_NANOS,
    priority=INT64,
    labels=st.lists(TEXT, max_size=100),
    service_name=TEXT,
    force_new_session=st.booleans(),
    disallow_new_session=st.booleans(),
    tags=st.dictionaries(TEXT, TEXT, max_size=5),
)
RESPONSES = st.builds(
    velda_pb2.SessionInitResponse, instance_id=INT64, session_id=TEXT, success=st.booleans(), port=INT32
)
FIRSTS = st.builds(
    velda_pb2.AgentUpdateRequest,
    slots=INT32,
    session_init_response=RESPONSES,
    current_executions=st.lists(
        st.builds(velda_pb2.CurrentExecution, request=REQUESTS, response=RESPONSES), max_size=3
    ),
)
LATER = st.builds(
    velda_pb2.AgentUpdateRequest,
    session_init_response=RESPONSES,
    session_completion=st.builds(velda_pb2.SessionCompletion, instance_id=INT64, session_id=TEXT),
)
ANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@ANY
@given(request=REQUESTS, seconds=st.sampled_from([0.0, 1.0, 1e6]))
def test_any_session_request_is_served_or_refused(request: velda_pb2.SessionRequest, seconds: float) -> None:
    world = World()
    good = world.join("good", slots=2)
    outcomes: list[Any] = []
    try:
        Bounds(Limits()).check_session(request)
        leave = world.registry.request(request, outcomes.append)
    except RefusedError:
        assert good.asked() == []
        return
    due = world.registry.next_deadline()
    assert due is not None
    assert due > world.now  # an absurd timeout is no loop without end
    good.starts(good.asked()[0], instance_id=request.instance_id)
    leave()
    assert outcomes[0].status == Status.STATUS_RUNNING
    world.pass_time(min(seconds, 80.0))
    world.request("next")
    assert good.asked()[-1] == "next"


@ANY
@given(first=FIRSTS, later=st.lists(LATER, max_size=5))
def test_any_agent_is_taken_or_refused_and_changes_nothing_of_others(
    first: velda_pb2.AgentUpdateRequest, later: list[velda_pb2.AgentUpdateRequest]
) -> None:
    world = World()
    good = world.join("good")
    world.request("s", instance_id=7)
    good.starts("s", instance_id=7)
    hostile = world.join("hostile")
    try:
        Bounds(Limits()).check_join(first)
        world.registry.join(pool=CPU, name="hostile", address="", first=first, link=hostile)
    except RefusedError:
        assert first.slots > 1000 or first.current_executions
    for message in later:
        world.registry.receive(hostile, message)
    (session,) = [s for s in world.registry.list(instance_id=7) if s.session_id == "s"]
    assert (session.status, session.internal_ip_address) == (Status.STATUS_RUNNING, "ip of good")
    assert good.view.sessions == 1


async def test_an_absurd_timeout_does_not_stop_the_clock() -> None:
    async with serving(Pools(CPU)) as plane, agent(plane, slots=3) as worker:
        for seconds in (-(2**63), -1, 2**63 - 1):
            request = velda_pb2.SessionRequest(pool="cpu", init_timeout=Duration(seconds=seconds), priority=-(2**63))
            asking = asyncio.ensure_future(plane.broker.RequestSession(request))
            await worker.start()
            assert (await asking).status == Status.STATUS_RUNNING


async def test_two_servers_of_one_name_are_no_way_in() -> None:
    """A name of any kind in the first message is refused before it is anywhere."""
    async with serving(Pools(CPU)) as plane, agent(plane):
        for name in ("", "x" * 1000, "a\0b"):
            stranger = WireAgent(plane.port, "stranger")
            await stranger.say(agent_identity=velda_pb2.AgentIdentity(agent_id=name, pool="no\npool"))
            code, _ = await stranger.ended()
            assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
            await stranger.vanish()
        assert list(plane.registry.pool_agents(CPU).agents) == ["a"]


def resident_kib() -> int:
    """The most that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
