"""The client calls over REST: shapes, names of pools, refusals, and clients that leave or do not read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from app.api import rest as rest_api
from app.api.rest import CALLS
from app.broker import clients
from app.broker.access import Caller, Credentials, Right
from app.broker.refusal import Reason, RefusedError
from app.core.agents import PoolInfo
from app.model.meta import NamespacedName
from app.proto import velda_pb2
from tests.api.serving import Rest, client, rest
from tests.broker.wire import agent
from tests.broker.world import CPU
from tests.support.limits import refusals

SESSION = "/broker/v1/session"
SESSIONS = "/broker/v1/sessions"
OTHER = NamespacedName("other", "gpu")
NEW = {"sessionId": "s", "instanceId": "1", "pool": "cpu"}


@pytest.fixture
async def served() -> AsyncIterator[Rest]:
    async with rest() as served:
        yield served


@pytest.fixture
async def http(served: Rest) -> AsyncIterator[httpx.AsyncClient]:
    async with client(served) as http:
        yield http


def test_every_call_of_the_protocol_has_its_route_and_its_types() -> None:
    services = velda_pb2.DESCRIPTOR.services_by_name.values()
    unary = {method.name: method for service in services for method in service.methods if not method.server_streaming}
    assert {call.rpc for call in CALLS} == set(unary)
    for call in CALLS:
        assert call.request.DESCRIPTOR is unary[call.rpc].input_type
        assert call.answer.DESCRIPTOR is unary[call.rpc].output_type


async def test_a_session_from_request_to_end(served: Rest, http: httpx.AsyncClient) -> None:
    async with agent(served.plane) as wire:
        asking = asyncio.create_task(http.post(SESSION, json={**NEW, "user": "ada", "newer": {"field": 1}}))
        got = await wire.start()
        assert (got.session_id, got.user, got.instance_id) == ("s", "ada", 1)
        answer = await asking
        started = answer.json()
        assert answer.status_code == 200
        assert started.pop("startedAt").endswith("Z")
        assert started == {
            "sessionId": "s",
            "executionId": started["executionId"],
            "status": "STATUS_RUNNING",
            "taskId": "",
            "sshConnection": {"host": "127.0.0.1", "port": 22, "hostKey": "aw==", "jumpHost": "", "jumpHostKey": ""},
        }
        tags = {"instance_id": 1, "session_id": "s", "tags": {"a": "b"}}
        assert (await http.post(f"{SESSION}/set-tag", json=tags)).json() == {}
        (listed,) = (await http.get(SESSIONS, params={"instanceId": "1"})).json()["sessions"]
        assert (listed["sessionId"], listed["instanceId"], listed["tags"]) == ("s", "1", {"a": "b"})
        assert (await http.post(f"{SESSION}/kill", json={"instanceId": 1, "sessionId": "s"})).json() == {}
        assert (await wire.hear()).kill_session_request.session_id == "s"


async def test_fields_that_are_unset_are_there_as_grpc_gateway_writes_them(http: httpx.AsyncClient) -> None:
    pool = {
        "name": "cpu",
        "description": "default/cpu",
        "autoscalerStatus": {"lastAllocationError": "", "lastAllocationErrorTime": None},
    }
    assert (await http.get("/pool")).json() == {"pools": [pool]}
    assert (await http.get("/pool/cpu")).json() == {"pool": pool}
    assert (await http.get(SESSIONS)).json() == {"sessions": []}


async def test_a_parameter_may_have_either_name_and_others_are_ignored(served: Rest, http: httpx.AsyncClient) -> None:
    async with agent(served.plane) as wire:
        asking = asyncio.create_task(http.post(SESSION, json={**NEW, "instanceId": "7"}))
        await wire.start()
        await asking
        for name in ("instanceId", "instance_id"):
            found = (await http.get(SESSIONS, params={name: "7", "pretty": "true"})).json()["sessions"]
            assert [session["sessionId"] for session in found] == ["s"]
        assert (await http.get(SESSIONS, params={"instanceId": "8"})).json() == {"sessions": []}


@pytest.mark.parametrize("path", ["/pool/other/gpu", "/pool/other%2Fgpu"])
async def test_a_pool_may_be_named_with_its_namespace(path: str) -> None:
    async with rest(CPU, OTHER, NamespacedName("third", "gpu")) as served, client(served) as http:
        assert (await http.get(path)).json()["pool"]["name"] == "other/gpu"
        async with http.stream("GET", f"{path}/watch") as answer:
            line = await anext(answer.aiter_lines())
        assert json.loads(line)["result"]["pool"] == "other/gpu"
        answer = await http.get("/pool/gpu")
        assert (answer.status_code, answer.json()["code"]) == (400, 3)


async def test_a_watch_shows_each_change_and_why_it_ends(
    served: Rest, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "WATCH_INTERVAL", 0.01)
    before = refusals(Reason.UNKNOWN_POOL.label)
    async with http.stream("GET", "/pool/cpu/watch") as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.headers["cache-control"] == "no-store"
        lines = answer.aiter_lines()
        nothing = {"lastAllocationError": "", "lastAllocationErrorTime": None}
        assert json.loads(await anext(lines)) == {"result": {"pool": "cpu", "autoscalerStatus": nothing}}
        served.pools.info[CPU] = PoolInfo(key=CPU, allocation_error="no quota", allocation_error_time=5.0)
        error = {"lastAllocationError": "no quota", "lastAllocationErrorTime": "1970-01-01T00:00:05Z"}
        assert json.loads(await anext(lines))["result"]["autoscalerStatus"] == error
        del served.pools.info[CPU]
        gone = {"code": 5, "message": 'there is no pool "cpu"', "details": []}
        assert [json.loads(line) async for line in lines] == [{"error": gone}]
    assert refusals(Reason.UNKNOWN_POOL.label) == before + 1


async def test_a_watch_without_news_says_that_it_is_there(
    served: Rest, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "WATCH_INTERVAL", 0.01)
    monkeypatch.setattr(rest_api, "HEARTBEAT", 0.03)
    async with http.stream("GET", "/pool/cpu/watch") as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        assert [await anext(lines) for _ in range(3)] == ["", "", ""]
        served.pools.info[CPU] = PoolInfo(key=CPU, allocation_error="no quota")
        while not (line := await anext(lines)):
            pass
        assert json.loads(line)["result"]["autoscalerStatus"]["lastAllocationError"] == "no quota"


async def test_a_watch_ends_when_the_server_stops(
    served: Rest, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "WATCH_INTERVAL", 0.01)
    async with http.stream("GET", "/pool/cpu/watch") as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        served.plane.registry.stop()
        assert json.loads(await anext(lines))["error"]["code"] == 14


async def test_a_reader_that_does_not_read_is_not_read_for(served: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written for it stops at what its connection holds, and the watch waits there."""
    monkeypatch.setattr(clients, "WATCH_INTERVAL", 0)
    looks = 0

    def find(name: str) -> list[PoolInfo]:
        nonlocal looks
        looks += 1
        return [PoolInfo(key=CPU, allocation_error=f"{looks:>100000}")]

    monkeypatch.setattr(served.pools, "find_pools", find)
    _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
    writer.write(b"GET /rest/pool/cpu/watch HTTP/1.1\r\nHost: x\r\n\r\n")
    before = 0
    while not looks or looks != before:
        before = looks
        await asyncio.sleep(0.2)
    assert looks < 500
    writer.transport.abort()


async def test_a_client_that_leaves_gives_up_its_place(served: Rest) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    body = json.dumps(NEW).encode()
    head = f"POST /rest{SESSION} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await served.plane.seen(CPU, pending=1)
    writer.close()
    await served.plane.seen(CPU, pending=0)
    assert served.plane.registry.list(instance_id=1) == []


async def test_one_that_waits_when_the_server_stops_is_told_to_try_again(served: Rest, http: httpx.AsyncClient) -> None:
    asking = asyncio.create_task(http.post(SESSION, json=NEW))
    await served.plane.seen(CPU, pending=1)
    served.plane.registry.stop()
    answer = await asking
    assert (answer.status_code, answer.json()["code"]) == (503, 14)
    assert answer.headers["retry-after"] == "1"


async def test_only_the_leader_answers(served: Rest, http: httpx.AsyncClient) -> None:
    served.leading = None
    before = refusals(Reason.NOT_LEADING.label)
    for answer in (await http.get("/pool"), await http.get("/pool/cpu/watch"), await http.post(SESSION, json=NEW)):
        message = "another replica leads: ask the Service that follows the leader"
        assert (answer.status_code, answer.json()) == (503, {"code": 14, "message": message, "details": []})
        assert answer.headers["retry-after"] == "1"
    assert refusals(Reason.NOT_LEADING.label) == before + 3


MALFORMED = {
    "no JSON": b"x",
    "no object": b"[]",
    "NaN": b'{"other": NaN}',
    "no UTF-8": b'{"user": "\xff"}',
    "half a surrogate pair": b'{"user": "\\ud800"}',
    "a key twice": b'{"user": "a", "user": "b"}',
    "a huge number": b'{"instanceId": ' + b"9" * 100_000 + b"}",
    "infinite": b'{"instanceId": 1e999}',
    "out of range": b'{"instanceId": "9223372036854775808"}',
    "nested objects": b'{"a":' * 100_000,
    "nested lists": b'{"a":' + b"[" * 100_000,
    "of another type": b'{"labels": "x"}',
    "no duration": b'{"initTimeout": "soon"}',
    "a duration out of range": b'{"initTimeout": "99999999999999s"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_body_is_400_and_changes_nothing(served: Rest, http: httpx.AsyncClient, body: bytes) -> None:
    before = refusals(Reason.BAD_REQUEST.label)
    answer = await http.post(SESSION, content=body)
    error = answer.json()
    assert (answer.status_code, error["code"], error["details"]) == (400, 3, [])
    assert error["message"].startswith("the body is not a SessionRequest: ")
    assert len(error["message"]) < 400
    assert refusals(Reason.BAD_REQUEST.label) == before + 1
    assert served.plane.registry.pool_agents(CPU).requested_sessions == 0


@pytest.mark.parametrize(
    "query", ["instanceId=x", "instanceId=1&instance_id=2", "instanceId=9223372036854775808", "instanceId=nan"]
)
async def test_a_malformed_query_is_400(http: httpx.AsyncClient, query: str) -> None:
    answer = await http.get(f"{SESSIONS}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


async def test_no_body_is_an_empty_message(http: httpx.AsyncClient) -> None:
    answer = await http.post(f"{SESSION}/kill")
    assert answer.json()["message"] == "session_id or service_name must be set"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, 5),
        ("GET", "/", 404, 5),
        ("GET", "/pool/none", 404, 5),
        ("GET", "/pool/none/watch", 404, 5),
        ("DELETE", "/pool", 405, 12),
        ("OPTIONS", "/pool", 405, 12),
        ("GET", SESSION, 405, 12),
        ("HEAD", "/pool", 405, 12),
    ],
)
async def test_nothing_answers_in_another_shape(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: int
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert answer.headers["content-type"] == "application/json"
    assert ("allow" in answer.headers) == (status == 405)
    if method != "HEAD":
        assert answer.json().keys() == {"code", "message", "details"}
        assert answer.json()["code"] == code


async def test_a_body_over_the_limit_is_413(http: httpx.AsyncClient) -> None:
    answer = await http.post(SESSION, content=b" " * (3 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, 8)


async def test_batch_work_is_501(http: httpx.AsyncClient) -> None:
    answer = await http.post(SESSION, json={**NEW, "workload": {}})
    assert (answer.status_code, answer.json()["code"]) == (501, 12)


class Closed:
    """Knows the token "good", whose user may do nothing."""

    async def identify(self, credentials: Credentials) -> Caller:
        if credentials.token != "good":
            raise RefusedError(Reason.UNAUTHENTICATED, "who are you?")
        return Caller(username="ada")

    async def allows(self, caller: Caller, right: Right) -> bool:
        return False


async def test_who_has_no_right_is_refused_before_anything_is_read(
    served: Rest, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.leading, "_access", Closed())
    for headers, body, status, code in (
        ({}, b"no JSON", 401, 16),
        ({"Authorization": "Bearer bad"}, b"no JSON", 401, 16),
        ({"Authorization": "Bearer good"}, json.dumps(NEW).encode(), 403, 7),
    ):
        answer = await http.post(SESSION, content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert served.plane.registry.pool_agents(CPU).requested_sessions == 0


async def test_an_error_of_our_own_is_500_and_tells_nothing(
    served: Rest, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> list[PoolInfo]:
        raise ValueError("secret")

    monkeypatch.setattr(served.pools, "pools", broken)
    answer = await http.get("/pool")
    assert (answer.status_code, answer.json()) == (500, {"code": 13, "message": "internal error", "details": []})
