"""The agent's side of the stream (reference: agent-protocol), against a real gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest

from app.agent import agent as module
from app.agent import sessions as sessions_module
from app.agent.agent import Agent, Identity, backoff
from app.proto.velda_pb2 import AgentUpdateRequest, KillSessionAgentRequest, SessionCompletion, SessionRequest
from tests.agent.conftest import TIMEOUT, FakeBroker, Stream
from tests.support.agents import LoopRunner

IDENTITY = Identity(agent_id="gpu-pool-1", pool="gpu-pool", hostname="gpu-pool-1.example")


class Bench:
    """One agent, and the broker that it joins."""

    def __init__(self, broker: FakeBroker, target: str) -> None:
        self.broker = broker
        self.target = target
        self.runner = LoopRunner()
        self.agent: Agent | None = None
        self.task: asyncio.Task[None] | None = None

    async def join(self, *, slots: int = 1, heartbeat: float = 60.0) -> Stream:
        """Start the agent; its first message is the next to read."""
        self.agent = Agent(IDENTITY, target=self.target, runner=self.runner, slots=slots, heartbeat=heartbeat)
        self.task = asyncio.create_task(self.agent.run())
        return await self.broker.stream()

    async def joined(self, **options: int) -> Stream:
        """As ``join``, and the first message is read."""
        stream = await self.join(**options)
        await stream.next()
        return stream

    async def run_session(self, stream: Stream, name: str = "s1") -> AgentUpdateRequest:
        await stream.send(session_request=SessionRequest(session_id=name, instance_id=7))
        return await stream.next()

    def stop(self) -> None:
        assert self.agent
        self.agent.stop()

    async def ended(self) -> None:
        assert self.task
        await asyncio.wait_for(self.task, TIMEOUT)


@pytest.fixture
async def bench(broker: tuple[FakeBroker, str]) -> AsyncIterator[Bench]:
    bench = Bench(*broker)
    yield bench
    if bench.task:
        bench.task.cancel()
        await asyncio.gather(bench.task, return_exceptions=True)


@pytest.fixture
def rejoin_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REJOIN_AFTER", 0.0)
    monkeypatch.setattr(module, "backoff", _no_backoff)


def _no_backoff(failures: int, *, jitter: float) -> float:
    return 0.01


async def test_the_first_message_says_who_it_is_and_what_it_can_take(bench: Bench) -> None:
    stream = await bench.join(slots=3)
    first = await stream.next()
    assert first.agent_identity.agent_id == "gpu-pool-1"
    assert first.agent_identity.pool == "gpu-pool"
    assert first.agent_identity.hostname == "gpu-pool-1.example"
    assert first.slots == 3
    assert not first.current_executions
    assert bench.agent
    await asyncio.wait_for(bench.agent.joined.wait(), TIMEOUT)


async def test_a_session_starts_and_its_end_is_reported(bench: Bench) -> None:
    stream = await bench.joined()
    response = (await bench.run_session(stream)).session_init_response
    session = bench.runner.sessions["s1"]
    assert (response.session_id, response.instance_id, response.success) == ("s1", 7, True)
    assert (response.port, response.host_key) == (session.port, session.host_key)
    session.finish()
    completion = (await stream.next()).session_completion
    assert completion == SessionCompletion(session_id="s1", instance_id=7)


async def test_a_failed_start_and_a_full_agent_refuse(bench: Bench) -> None:
    stream = await bench.joined()
    bench.runner.failing = True
    assert not (await bench.run_session(stream)).session_init_response.success
    bench.runner.failing = False
    assert (await bench.run_session(stream, "s2")).session_init_response.success
    refused = (await bench.run_session(stream, "s3")).session_init_response
    assert (refused.session_id, refused.success) == ("s3", False)


async def test_a_request_that_is_repeated_gets_the_same_answer(bench: Bench) -> None:
    stream = await bench.joined()
    assert await bench.run_session(stream) == await bench.run_session(stream)


async def test_several_slots_take_several_sessions(bench: Bench) -> None:
    stream = await bench.joined(slots=2)
    first, second = await bench.run_session(stream, "s1"), await bench.run_session(stream, "s2")
    assert first.session_init_response.success
    assert second.session_init_response.success


async def test_a_session_is_killed_gently_and_with_force_at_once(bench: Bench) -> None:
    bench.runner.stubborn = True
    stream = await bench.joined()
    await bench.run_session(stream)
    await stream.send(kill_session_request=KillSessionAgentRequest(session_id="s1"))
    await asyncio.wait_for(bench.runner.sessions["s1"].terminated.wait(), TIMEOUT)
    await stream.send(kill_session_request=KillSessionAgentRequest(session_id="s1", force=True))
    assert (await stream.next()).session_completion.session_id == "s1"


async def test_a_session_that_does_not_end_when_asked_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "KILL_AFTER", 0.01)
    bench.runner.stubborn = True
    stream = await bench.joined()
    await bench.run_session(stream)
    await stream.send(kill_session_request=KillSessionAgentRequest(session_id="s1"))
    assert (await stream.next()).session_completion.session_id == "s1"


async def test_a_session_killed_while_it_starts_never_runs(bench: Bench) -> None:
    bench.runner.gate.clear()
    stream = await bench.joined()
    await stream.send(session_request=SessionRequest(session_id="s1"))
    await stream.send(kill_session_request=KillSessionAgentRequest(session_id="s1"))
    assert not (await stream.next()).session_init_response.success
    bench.runner.gate.set()
    assert (await bench.run_session(stream, "s2")).session_init_response.success
    assert list(bench.runner.sessions) == ["s2"]


async def test_silence_is_broken_by_empty_messages(bench: Bench) -> None:
    stream = await bench.join(heartbeat=0.01)
    await stream.next()
    assert [await stream.next() for _ in range(2)] == [AgentUpdateRequest(), AgentUpdateRequest()]


async def test_told_to_stop_an_idle_agent_half_closes(bench: Bench) -> None:
    stream = await bench.joined()
    bench.stop()
    await stream.half_closed()
    await bench.ended()


async def test_told_to_stop_a_busy_agent_ends_its_sessions_first_and_takes_no_more(bench: Bench) -> None:
    bench.runner.stubborn = True
    stream = await bench.joined(slots=2)
    await bench.run_session(stream)
    bench.stop()
    session = bench.runner.sessions["s1"]
    await asyncio.wait_for(session.terminated.wait(), TIMEOUT)
    refused = (await bench.run_session(stream, "s2")).session_init_response
    assert (refused.session_id, refused.success) == ("s2", False)
    session.finish()
    assert (await stream.next()).session_completion.session_id == "s1"
    await stream.half_closed()
    await bench.ended()


async def test_a_server_that_keeps_the_stream_after_the_farewell_does_not_hold_the_agent(
    broker: tuple[FakeBroker, str], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAREWELL", 0.01)
    monkeypatch.setattr(broker[0], "_read", _never_done(broker[0]._read))
    await bench.joined()
    bench.stop()
    await bench.ended()


def _never_done(read: Callable[..., object]) -> Callable[..., object]:
    async def hold(requests: AsyncIterator[AgentUpdateRequest], stream: Stream) -> None:
        await read(requests, stream)  # type: ignore[misc]
        await asyncio.Event().wait()

    return hold


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE])
@pytest.mark.usefixtures("rejoin_at_once")
async def test_sessions_survive_a_lost_stream_and_are_reported_again(bench: Bench, code: grpc.StatusCode) -> None:
    stream = await bench.joined(slots=2)
    request = SessionRequest(session_id="s1", instance_id=7)
    request.MergeFromString(bytes([0xFA, 0x07, 0x03]) + b"abc")  # field 127: unknown, and to be kept
    await stream.send(session_request=request)
    response = (await stream.next()).session_init_response
    stream.end(code)
    again = await bench.broker.stream()
    (execution,) = (await again.next()).current_executions
    assert execution.request.SerializeToString() == request.SerializeToString()
    assert execution.response == response
    assert (await bench.run_session(again, "s2")).session_init_response.success


@pytest.mark.usefixtures("rejoin_at_once")
async def test_an_end_that_nobody_heard_is_told_on_the_next_stream(bench: Bench) -> None:
    stream = await bench.joined()
    await bench.run_session(stream)
    bench.broker.refusal = grpc.StatusCode.UNAVAILABLE
    stream.end()
    await asyncio.wait_for(bench.broker.refused.wait(), TIMEOUT)
    bench.runner.sessions["s1"].finish()
    bench.broker.refusal = None
    again = await bench.broker.stream()
    await again.next()
    assert (await again.next()).session_completion.session_id == "s1"


@pytest.mark.usefixtures("rejoin_at_once")
async def test_nothing_is_told_to_a_server_that_has_not_taken_the_agent(bench: Bench) -> None:
    stream = await bench.joined()
    await bench.run_session(stream)
    bench.broker.silent = True
    stream.end()
    unanswered = await bench.broker.stream()
    await unanswered.next()
    bench.runner.sessions["s1"].finish()
    bench.stop()
    await unanswered.half_closed()


@pytest.mark.usefixtures("rejoin_at_once")
async def test_a_session_that_was_not_up_when_the_stream_was_lost_is_given_up(bench: Bench) -> None:
    bench.runner.gate.clear()
    stream = await bench.joined()
    await stream.send(session_request=SessionRequest(session_id="s1"))
    stream.end(grpc.StatusCode.UNAVAILABLE)
    again = await bench.broker.stream()
    assert not (await again.next()).current_executions
    bench.runner.gate.set()
    assert (await bench.run_session(again, "s2")).session_init_response.success
    assert list(bench.runner.sessions) == ["s2"]


@pytest.mark.usefixtures("rejoin_at_once")
async def test_a_refused_agent_tries_until_it_is_taken(bench: Bench) -> None:
    bench.broker.refusal = grpc.StatusCode.NOT_FOUND
    joining = asyncio.create_task(bench.join())
    await asyncio.wait_for(bench.broker.refused.wait(), TIMEOUT)
    assert bench.agent
    assert not bench.agent.joined.is_set()
    bench.broker.refusal = None
    await (await joining).next()


async def test_an_agent_that_waits_to_reconnect_stops_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REJOIN_AFTER", 3600.0)
    stream = await bench.joined()
    await bench.run_session(stream)
    stream.end()
    bench.stop()
    await bench.ended()
    assert bench.runner.sessions["s1"].terminated.is_set()


async def test_a_cancelled_agent_leaves_no_session(bench: Bench) -> None:
    bench.runner.stubborn = True
    stream = await bench.joined()
    await bench.run_session(stream)
    assert bench.task
    bench.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bench.task
    await asyncio.wait_for(bench.runner.sessions["s1"].wait(), TIMEOUT)


def test_backoff_doubles_to_a_limit_and_jitter_halves_it_at_most() -> None:
    assert [backoff(failures, jitter=0.0) for failures in (0, 1, 2, 3, 4, 1000)] == [1, 2, 4, 8, 15, 15]
    assert backoff(1, jitter=0.999) == pytest.approx(1.0, abs=0.01)


async def test_the_token_is_read_anew_for_each_stream_and_may_be_missing(
    broker: tuple[FakeBroker, str], tmp_path: Path, rejoin_at_once: None
) -> None:
    token = tmp_path / "token"
    agent = Agent(IDENTITY, target=broker[1], runner=LoopRunner(), token=token)
    running = asyncio.create_task(agent.run())
    for text in ("", "first", "second"):
        stream = await broker[0].stream()
        assert stream.metadata.get("authorization") == (f"Bearer {text}" if text else None)
        token.write_text("first\n" if not text else "second\n")
        stream.end()
    agent.stop()
    await asyncio.wait_for(running, TIMEOUT)
