"""Each limit of the broker, over real connections: what is over it is refused by its name, counted, told, and changes
nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Any

import grpc
import pytest
import structlog

from app.proto import velda_pb2
from tests.broker import wire
from tests.broker.wire import Plane, WireAgent, agent, serving
from tests.broker.world import CPU, Pools, Status, execution
from tests.support import limits as support

refused_by = partial(support.refused_by, told_in=("error", "cause"))

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Those of the servers of this test, if they are to be others."""
    chosen: dict[str, int] = {}
    base, copy = wire.BASE, wire.BASE.model_copy

    def with_limits(*, update: dict[str, Any]) -> Any:
        return copy(update={**update, "limits": base.limits.model_copy(update=chosen)})

    monkeypatch.setattr(type(base), "model_copy", lambda _, *, update: with_limits(update=update))
    return chosen


def request(session_id: str = "s", **fields: Any) -> velda_pb2.SessionRequest:
    return velda_pb2.SessionRequest(session_id=session_id, pool="cpu", instance_id=1, **fields)


async def answer(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


async def still_serves(plane: Plane, worker: WireAgent) -> None:
    """Nothing has changed, and the agent takes a session."""
    assert plane.registry.list(instance_id=1) == []
    assert plane.registry.pool_agents(CPU).agents[worker.name].connected
    asking = asyncio.ensure_future(plane.broker.RequestSession(request("good")))
    await worker.start()
    assert (await asking).status == Status.STATUS_RUNNING


@pytest.mark.parametrize(
    ("fields", "limit", "message"),
    [
        ({"user": "u" * 257}, "name_length", "user has 257 characters (limits.name_length: 256)"),
        ({"service_name": "n" * 257}, "name_length", "service_name has 257 characters (limits.name_length: 256)"),
        ({"labels": ["x"] * 65}, "tags", "the session request has 65 labels (limits.tags: 64)"),
        ({"tags": {str(n): "x" for n in range(65)}}, "tags", "the session request has 65 tags (limits.tags: 64)"),
        ({"labels": ["x" * 70_000]}, "session_bytes", " bytes (limits.session_bytes: 65536)"),
    ],
)
async def test_a_session_request_that_is_too_large(
    limits: dict[str, int], fields: dict[str, Any], limit: str, message: str
) -> None:
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        with refused_by(limit):
            code, details = await answer(plane.broker.RequestSession(request(**fields)))
        assert code is EXHAUSTED
        assert message in details
        await still_serves(plane, worker)


@pytest.mark.parametrize("name", ["\0", "a\nlevel=error event=lies", "\x1b[2J", "\u202eevil", "\ud7ff"])
async def test_a_name_that_cannot_be_printed_comes_into_no_log(limits: dict[str, int], name: str) -> None:
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        with structlog.testing.capture_logs() as logs:
            code, details = await answer(plane.broker.RequestSession(request(name)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details == "session_id has characters that cannot be printed; leave them out"
        assert name not in str(logs)
        await still_serves(plane, worker)


async def test_tags_do_not_grow_without_end(limits: dict[str, int]) -> None:
    limits.update(tags=3, session_bytes=1024)
    async with serving(Pools(CPU)) as plane, agent(plane, running=(execution("s"),)):

        def tag(**tags: str) -> Awaitable[Any]:
            return plane.broker.SetTag(velda_pb2.SetTagRequest(instance_id=1, session_id="s", tags=tags))

        await tag(a="1", b="2", c="3")
        with refused_by("tags"):
            code, details = await answer(tag(d="4"))
        assert (code, details) == (EXHAUSTED, "the session would have 4 tags; remove some (limits.tags: 3)")
        with refused_by("session_bytes"):
            assert (await answer(tag(a="x" * 1025)))[0] is EXHAUSTED
        await tag(a="", d="4")
        (session,) = plane.registry.list(instance_id=1)
        assert dict(session.tags) == {"b": "2", "c": "3", "d": "4"}


@pytest.mark.parametrize(
    ("limit", "users"), [("waiting_per_pool", ("ada", "ben", "cy")), ("waiting_per_user", ("ada", "ada", "ada"))]
)
async def test_requests_that_wait(limits: dict[str, int], limit: str, users: tuple[str, ...]) -> None:
    limits[limit] = 2
    async with serving(Pools(CPU)) as plane:
        waiting = [plane.broker.RequestSession(request(user, user=user)) for user in users[:1]]
        await plane.seen(CPU, pending=1)
        waiting.append(plane.broker.RequestSession(request("second", user=users[1])))
        await plane.seen(CPU, pending=2)
        with refused_by(limit):
            code, details = await answer(plane.broker.RequestSession(request("third", user=users[2])))
        assert code is EXHAUSTED
        assert details.endswith(f"; try again later (limits.{limit}: 2)")
        await plane.seen(CPU, pending=2)
        waiting[0].cancel()
        await plane.seen(CPU, pending=1)
        again = plane.broker.RequestSession(request("third", user=users[2]))
        await plane.seen(CPU, pending=2)
        again.cancel()
        waiting[1].cancel()


async def test_watches(limits: dict[str, int]) -> None:
    limits["watches"] = 1
    async with serving(Pools(CPU)) as plane:
        watch = plane.pools.WatchPoolStatus(velda_pb2.WatchPoolStatusRequest(pool="cpu"))
        await watch.read()
        with refused_by("watches"):
            second = plane.pools.WatchPoolStatus(velda_pb2.WatchPoolStatusRequest(pool="cpu"))
            with pytest.raises(grpc.aio.AioRpcError):
                await second.read()
            assert await second.code() is EXHAUSTED
        watch.cancel()


@pytest.mark.parametrize("first", [{"slots": 2**31 - 1}, {"current_executions": [execution(str(n)) for n in range(5)]}])
async def test_an_agent_with_more_slots_than_can_be(limits: dict[str, int], first: dict[str, Any]) -> None:
    limits["slots_per_agent"] = 4
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        boaster = WireAgent(plane.port, "boaster")
        identity = velda_pb2.AgentIdentity(agent_id="boaster", pool="cpu")
        with refused_by("slots_per_agent"):
            await boaster.say(agent_identity=identity, **first)
            code, details = await boaster.ended()
        assert code is EXHAUSTED
        assert "(limits.slots_per_agent: 4)" in details
        assert "boaster" not in plane.registry.pool_agents(CPU).agents
        await boaster.vanish()
        await still_serves(plane, worker)


async def test_streams_that_have_not_said_whose_they_are(limits: dict[str, int]) -> None:
    limits.update(new_streams_per_address=1, request_seconds=1)
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        with refused_by("request_seconds"):
            silent = WireAgent(plane.port, "silent")
            while not len(plane.server.bounds.arrivals):  # noqa: ASYNC110  nobody is told of it
                await asyncio.sleep(0)
            late = WireAgent(plane.port, "late")
            with refused_by("new_streams_per_address"):
                assert (await late.ended())[0] is EXHAUSTED
            assert (await silent.ended())[0] is EXHAUSTED
        async with agent(plane, "in time"):
            await silent.vanish()
            await late.vanish()
        await still_serves(plane, worker)


async def test_an_agent_that_answers_with_a_flood_is_sent_away_and_keeps_its_sessions(limits: dict[str, int]) -> None:
    limits["session_bytes"] = 1024
    async with serving(Pools(CPU)) as plane, agent(plane, running=(execution("s"),)) as worker:
        with refused_by("session_bytes"):
            response = velda_pb2.SessionInitResponse(session_id="s", instance_id=1, host_key=b"x" * 2000)
            await worker.say(session_init_response=response)
            code, details = await worker.ended()
        assert (code, "(limits.session_bytes: 1024)" in details) == (EXHAUSTED, True)
        assert [session.status for session in plane.registry.list(instance_id=1)] == [Status.STATUS_STALE]


async def test_an_agent_that_does_not_read_is_lost_and_its_sessions_go_to_another(limits: dict[str, int]) -> None:
    limits["unread_messages"] = 20
    async with serving(Pools(CPU)) as plane:
        deaf = WireAgent(plane.port, "deaf")
        await deaf.join(slots=1000)
        await plane.seen(CPU, connected=1)
        with refused_by("unread_messages"):
            large = ["x" * 60_000]
            calls = [plane.broker.RequestSession(request(str(n), labels=large)) for n in range(200)]
            await plane.seen(CPU, connected=0, pending=200)
        async with agent(plane, "reads", slots=8) as worker:
            for _ in calls:
                await worker.end(await worker.start())
            assert {(await call).status for call in calls} == {Status.STATUS_RUNNING}
        await deaf.vanish()


async def test_calls_at_once_on_one_connection_wait_for_each_other(limits: dict[str, int]) -> None:
    limits["streams_per_connection"] = 2
    async with serving(Pools(CPU)) as plane:
        waiting = [plane.broker.RequestSession(request(str(n))) for n in range(2)]
        await plane.seen(CPU, pending=2)
        third = plane.broker.RequestSession(request("third"), timeout=0.5)
        assert await third.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with agent(plane, slots=2) as worker:
            for _ in waiting:
                await worker.start()
            await asyncio.gather(*waiting)
        await plane.broker.ListSessions(velda_pb2.ListSessionsRequest(instance_id=1))


async def test_headers_over_the_limit_are_refused_by_grpc(limits: dict[str, int]) -> None:
    async with serving(Pools(CPU)) as plane, agent(plane) as worker:
        call = plane.broker.ListSessions(velda_pb2.ListSessionsRequest(), metadata=(("x", "y" * 40_000),))
        assert (await answer(call))[0] is EXHAUSTED
        await still_serves(plane, worker)
