"""What a page is sent: all at first and then what changes, to those who may see it and for as long as they may."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from app.broker.access import ANYONE, Caller, Credentials, Right
from app.broker.refusal import Reason, RefusedError
from app.dashboard import routes, streams
from app.model.meta import POOL_LABEL, NamespacedName
from app.model.pod import Pod
from app.proto import velda_pb2
from tests.broker.wire import agent
from tests.broker.world import CPU
from tests.dashboard.events import PATIENCE, Reader, reading
from tests.dashboard.serving import Served, dashboard
from tests.support.limits import refusals, refused_by

OTHER = NamespacedName("other", "gpu")
THIRD = NamespacedName("other", "tpu")
TOKEN = "the-token-of-ada"


class Users:
    """Knows one token, whose user has these rights: (verb, namespace or "" for all)."""

    def __init__(self, *rights: tuple[str, str]) -> None:
        self.rights = set(rights)
        self.known = True

    async def identify(self, credentials: Credentials) -> Caller:
        if not self.known or credentials.token != TOKEN:
            raise RefusedError(Reason.UNAUTHENTICATED, "who are you?")
        return Caller(username="ada")

    async def allows(self, caller: Caller, right: Right) -> bool:
        return (right.verb, "") in self.rights or (right.verb, right.namespace) in self.rights


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "TICK", 0.01)
    monkeypatch.setattr(streams, "RIGHTS_INTERVAL", 0.05)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with dashboard(CPU, OTHER) as served:
        yield served


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with served.http() as http:
        yield http


def places(served: Served) -> int:
    return len(served.plane.server.bounds._watches)


async def taken(served: Served, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while places(served) != count:  # noqa: ASYNC110  nobody tells when a client has left
            await asyncio.sleep(0.01)


async def test_the_overview_is_all_pools_and_then_each_that_changes(served: Served, http: httpx.AsyncClient) -> None:
    async with reading(http, "pools") as reader:
        assert reader.answer.headers["content-type"].startswith("text/event-stream")
        assert reader.answer.headers["cache-control"] == "no-store"
        name, first = await reader.next()
        assert (name, first["whole"], first["gone"]) == ("pools", True, [])
        assert [row["key"] for row in first["rows"]] == ["default/cpu", "other/gpu"]
        row = first["rows"][0]
        assert (row["state"], row["size"], row["idle"], row["running"], row["queue"]) == ("ready", 3, 2, 1, 0)
        served.put(CPU, state="failing", error="no quota", pendingSessions=7)
        _, second = await reader.next()
        assert second["whole"] is False
        (row,) = second["rows"]
        assert (row["key"], row["state"], row["error"], row["queue"]) == ("default/cpu", "failing", "no quota", 7)
        served.delete(OTHER)
        _, third = await reader.next()
        assert (third["rows"], third["gone"]) == ([], ["other/gpu"])


async def test_one_pool_with_its_history_its_agents_and_its_sessions(served: Served, http: httpx.AsyncClient) -> None:
    async with reading(http, "pools/default/cpu") as reader:
        _, pool = await reader.next()
        assert pool["history"]["idle"] == [2]
        assert pool["pool"]["decision"]["rule"] == "minIdle"
        assert pool["pool"]["conditions"][0]["type"] == "Ready"
        assert (await reader.until("agents"))["rows"] == []
        assert (await reader.until("sessions")) == {"whole": True, "total": 0, "hidden": False, "rows": [], "gone": []}
        async with agent(served.plane, "agent-1") as wire:
            (joined,) = (await until(reader, "agents"))["rows"]
            assert (joined["key"], joined["state"], joined["slots"]) == ("agent-1", "idle", 1)
            request = velda_pb2.SessionRequest(
                session_id="s", instance_id=7, pool="cpu", user="ada", service_name="dev"
            )
            asking = asyncio.create_task(served.plane.server.clients.request_session(ANYONE, request))
            await wire.start()
            await asking
            session = await until(reader, "sessions", state="running")
            assert {key: session["rows"][0][key] for key in ("key", "id", "instance", "user", "service", "agent")} == {
                "key": "7/s",
                "id": "s",
                "instance": "7",
                "user": "ada",
                "service": "dev",
                "agent": "agent-1",
            }
        assert (await until(reader, "agents", state="lost"))["rows"][0]["key"] == "agent-1"
        assert (await until(reader, "sessions", state="stale"))["rows"][0]["key"] == "7/s"
        served.put(CPU, runningReplicas=5)
        changed = await reader.until("pool")
        assert (changed["pool"]["running"], "history" in changed) == (5, False)


async def until(reader: Reader, name: str, state: str = "") -> Any:
    """The next event of that name that has rows, in that state."""
    while not (rows := (data := await reader.until(name))["rows"]) or state not in ("", rows[0]["state"]):
        pass
    return data


async def test_a_pod_that_has_not_joined_says_what_keeps_it(served: Served, http: httpx.AsyncClient) -> None:
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    manifest = {
        "metadata": {"name": "cpu-1", "namespace": "default", "labels": {POOL_LABEL: "cpu"}},
        "spec": {"nodeName": "node-7"},
        "status": {"containerStatuses": [waiting]},
    }
    pod = msgspec.convert(manifest, Pod)
    served.cache.pod_changed(None, pod)
    async with reading(http, "pools/default/cpu") as reader:
        (row,) = (await reader.until("agents"))["rows"]
        assert (row["state"], row["node"], row["problem"]) == ("pending", "node-7", "ImagePullBackOff: no such image")
        served.cache.pod_changed(pod, None)
        while (news := await reader.until("agents"))["gone"] != ["cpu-1"]:
            pass
        assert news["total"] == 0


async def test_of_very_many_agents_those_of_trouble_are_shown(
    served: Served, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST_ROWS", 2)
    async with agent(served.plane, "a"), agent(served.plane, "b"), agent(served.plane, "z") as wire:
        await wire.vanish()
        await served.plane.seen(CPU, connected=2)
        async with reading(http, "pools/default/cpu") as reader:
            news = await reader.until("agents")
    assert (news["total"], [row["key"] for row in news["rows"]]) == (3, ["z", "a"])


# Rights.


@pytest.mark.parametrize("token", ["", "another", TOKEN])
@pytest.mark.parametrize("path", ["pools", "pools/default/cpu"])
async def test_who_has_no_right_is_refused_counted_and_told_in_the_log(path: str, token: str) -> None:
    reason = Reason.FORBIDDEN if token == TOKEN else Reason.UNAUTHENTICATED
    before = refusals(reason.label)
    async with dashboard(CPU, access=Users()) as served, served.http(token) as http:
        with structlog.testing.capture_logs() as logs:
            answer = await http.get(f"/dashboard/{path}")
        assert answer.status_code == (403 if token == TOKEN else 401)
        assert answer.headers.get("www-authenticate") == (None if token == TOKEN else "Bearer")
        assert (refusals(reason.label), places(served)) == (before + 1, 0)
    (line,) = [line for line in logs if line["event"] == "refused"]
    assert (line["reason"], line["call"].split()[0]) == (reason.label, "dashboard")
    assert TOKEN not in json.dumps(logs)


async def test_a_token_in_the_address_is_none() -> None:
    async with dashboard(CPU, access=Users(("list", ""))) as served, served.http() as http:
        answer = await http.get("/dashboard/pools", params={"token": TOKEN, "access_token": TOKEN})
    assert answer.status_code == 401


async def test_only_the_namespaces_that_one_may_list() -> None:
    users = Users(("list", "other"))
    async with (
        dashboard(CPU, OTHER, access=users) as served,
        served.http(TOKEN) as http,
        reading(http, "pools") as reader,
    ):
        _, first = await reader.next()
        assert [row["key"] for row in first["rows"]] == ["other/gpu"]
        served.put(CPU, pendingSessions=1)
        served.delete(CPU)
        served.put(THIRD)
        _, second = await reader.next()
        assert ([row["key"] for row in second["rows"]], second["gone"]) == (["other/tpu"], [])
        users.rights = {("list", "")}
        served.put(CPU)
        _, third = await reader.next()
        assert (third["whole"], len(third["rows"])) == (True, 3)


async def test_where_there_is_no_pool_everybody_sees_none() -> None:
    async with dashboard(access=Users()) as served, served.http(TOKEN) as http, reading(http, "pools") as reader:
        assert (await reader.next())[1]["rows"] == []


async def test_sessions_are_for_those_who_may_list_them() -> None:
    async with (
        dashboard(CPU, access=Users(("watch", "default"))) as served,
        served.http(TOKEN) as http,
        reading(http, "pools/default/cpu") as reader,
    ):
        assert (await reader.until("sessions"))["hidden"] is True


@pytest.mark.parametrize(("path", "verb"), [("pools", "list"), ("pools/default/cpu", "watch")])
@pytest.mark.parametrize("lost", ["right", "token"])
async def test_a_stream_ends_with_the_readers_rights(path: str, verb: str, lost: str) -> None:
    users = Users((verb, ""))
    reason = Reason.FORBIDDEN if lost == "right" else Reason.UNAUTHENTICATED
    before = refusals(reason.label)
    async with dashboard(CPU, access=users) as served, served.http(TOKEN) as http, reading(http, path) as reader:
        await reader.next()
        assert places(served) == 1
        users.known = lost != "token"
        users.rights = set()
        assert (await reader.until("refused"))["code"] == (7 if lost == "right" else 16)
        with pytest.raises(StopAsyncIteration):
            await reader.next()
        assert (refusals(reason.label), places(served)) == (before + 1, 0)


async def test_a_pool_that_one_has_no_right_to_is_as_one_that_is_not() -> None:
    async with dashboard(CPU, access=Users(("watch", "other"))) as served, served.http(TOKEN) as http:
        answers = [await http.get(f"/dashboard/pools/default/{name}") for name in ("cpu", "none")]
        assert [answer.status_code for answer in answers] == [403, 403]
        assert answers[0].text.replace('\\"cpu\\"', "") == answers[1].text.replace('\\"none\\"', "")
        assert (await http.get("/dashboard/pools/other/none")).status_code == 404


async def test_the_end_of_a_pool_is_told(served: Served, http: httpx.AsyncClient) -> None:
    async with reading(http, "pools/default/cpu") as reader:
        await reader.next()
        served.delete(CPU)
        refused = await reader.until("refused")
        assert refused == {"code": 5, "message": 'there is no pool "default/cpu"', "details": []}


# Who reads.


async def test_who_one_is() -> None:
    async with dashboard(CPU, access=Users()) as served, served.http(TOKEN) as ada, served.http() as nobody:
        assert (await ada.get("/dashboard/me")).json()["user"] == "ada"
        before = refusals(Reason.UNAUTHENTICATED.label)
        answer = await nobody.get("/dashboard/me")
        assert (answer.status_code, answer.json()["user"]) == (200, None)
        assert refusals(Reason.UNAUTHENTICATED.label) == before  # who has shown nothing is refused nothing
        answer = await nobody.get("/dashboard/me", headers={"Authorization": "Bearer another"})
        assert (answer.status_code, refusals(Reason.UNAUTHENTICATED.label)) == (401, before + 1)


async def test_only_the_leader_answers(served: Served, http: httpx.AsyncClient) -> None:
    async with reading(http, "pools") as reader:
        await reader.next()
        served.leading = None
        assert (await reader.until("refused"))["code"] == 14
    for path in ("pools", "pools/default/cpu", "me"):
        answer = await http.get(f"/dashboard/{path}")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_a_stream_ends_when_the_server_stops(served: Served, http: httpx.AsyncClient) -> None:
    async with reading(http, "pools/default/cpu") as reader:
        await reader.next()
        served.plane.registry.stop()
        assert (await reader.until("refused"))["code"] == 14


# Limits.


async def test_streams_have_so_many_places() -> None:
    async with dashboard(CPU, watches=1) as served, served.http() as http:
        async with reading(http, "pools") as reader:
            await reader.next()
            with refused_by("watches"):
                answer = await http.get("/dashboard/pools/default/cpu")
            assert (answer.status_code, answer.json()["code"]) == (429, 8)
        await taken(served, 0)
        async with reading(http, "pools/default/cpu") as reader:
            await reader.next()


async def test_a_stream_has_its_time(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAM_SECONDS", 0.1)
    async with reading(http, "pools") as reader:
        await reader.next()
        with pytest.raises(StopAsyncIteration):
            await reader.next()


async def test_without_news_the_reader_is_told_that_we_are_there(
    served: Served, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT", 0.02)
    async with reading(http, "pools") as reader:
        await reader.next()
        pause = asyncio.get_running_loop().call_later(0.2, served.put, CPU)
        await reader.next()
        pause.cancel()
        assert reader.comments > 1


async def test_who_does_not_read_is_not_read_for_and_sent_away() -> None:
    """What is made for them stops at what their connection holds; after request_seconds it is broken."""
    keys = [NamespacedName("default", f"{'x' * 60}-{index}") for index in range(2000)]
    async with dashboard(*keys, request_seconds=1) as served:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            address = httpx.URL(served.url)
            await loop.sock_connect(slow, (address.host, address.port))
            with refused_by("request_seconds"):
                await loop.sock_sendall(slow, b"GET /dashboard/pools HTTP/1.1\r\nHost: x\r\n\r\n")
                await taken(served, 1)
                async with asyncio.timeout(PATIENCE):
                    while places(served):
                        for key in keys:
                            served.put(key)
                        await asyncio.sleep(0.05)
