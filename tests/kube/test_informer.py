"""An informer through all that an API server and the way to it can do to a list and a watch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from aiohttp import web

from app.kube import client as client_module
from app.kube import informer as module
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import POOL_LABEL
from app.model.pod import Pod
from tests.kube.faults import FaultServer, answer, failure, failure_body
from tests.kube.following import PATH, TIMEOUT, Follower, Script, Watch, bookmark, event, page, pod
from tests.support.cluster import Cluster

GONE = (410, "Expired", "too old resource version: 10 (20)")
FUTURE = (504, "Timeout", "Too large resource version: 10, current: 5")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST", 0.01)
    monkeypatch.setattr(module, "SHORT", 0.0)


@pytest.fixture
def script(faults: FaultServer) -> Script:
    return Script(faults)


@pytest.fixture
def follower(client: Client, script: Script) -> Follower:
    return Follower(client)


@pytest.fixture
async def watch(follower: Follower, script: Script) -> AsyncIterator[Watch]:
    """The watch of an informer that knows pods a and b."""
    script.lists = [page(pod("a", version=3), pod("b", version=4))]
    async with follower.running():
        assert set(await follower.several(2)) == {"+a@3", "+b@4"}
        yield await script.watch()


async def test_a_list_comes_in_pages_and_counts_when_it_is_whole(follower: Follower, script: Script) -> None:
    script.lists = [page(pod("a"), token="next"), page(pod("b"), version=20)]
    script.hold.clear()
    async with follower.running():
        await asyncio.wait_for(script.held.wait(), TIMEOUT)
        assert not follower.informer.synced.is_set()
        assert not follower.names
        script.hold.set()
        await follower.synced()
        assert follower.names == {"a", "b"}
        watch = await script.watch()
    assert [query.get("continue") for query in script.listed] == [None, "next"]
    assert watch.query["resourceVersion"] == "20"
    assert watch.query["allowWatchBookmarks"] == "true"
    assert module.WATCH_SECONDS <= int(watch.query["timeoutSeconds"]) <= 2 * module.WATCH_SECONDS


async def test_lists_are_never_older_than_what_was_watched(watch: Watch, script: Script) -> None:
    """Without a resourceVersion the API server answers from etcd, or from a cache that is as new."""
    assert "resourceVersion" not in script.listed[0]


async def test_a_refresh_shows_what_a_watch_that_lags_has_not(watch: Watch, follower: Follower, script: Script) -> None:
    script.lists = [page(pod("b", version=4), pod("c", version=7), version=11)]
    await follower.informer.refresh()
    assert set(await follower.several(2)) == {"-a@3", "+c@7"}
    watch.send(
        event("ADDED", pod("c", version=7)), event("DELETED", pod("a", version=9)), event("ADDED", pod("d", version=12))
    )
    assert await follower.next() == "+d@12"


async def test_a_refresh_that_is_older_than_the_watch_changes_nothing(
    watch: Watch, follower: Follower, script: Script
) -> None:
    script.lists = [page(pod("a", version=3), token="next", version=11), page(pod("b", version=4), version=11)]
    script.hold.clear()
    refreshing = asyncio.create_task(follower.informer.refresh())
    await asyncio.wait_for(script.held.wait(), TIMEOUT)
    watch.send(event("ADDED", pod("c", version=12)), event("DELETED", pod("a", version=13)))
    assert [await follower.next(), await follower.next()] == ["+c@12", "-a@3"]
    script.hold.set()
    await refreshing
    assert follower.names == {"b", "c"}
    assert follower.changes.empty()


async def test_a_refresh_that_fails_changes_nothing(watch: Watch, follower: Follower, script: Script) -> None:
    script.lists = [page(token="next"), failure(500, "InternalError")]
    with pytest.raises(ApiError):
        await follower.informer.refresh()
    assert follower.names == {"a", "b"}


async def test_selectors_are_sent(client: Client, script: Script) -> None:
    script.lists = [page()]
    follower = Follower(client, label_selector="velda.io/pool", field_selector="status.phase=Running")
    async with follower.running():
        watch = await script.watch()
    for query in (script.listed[0], watch.query):
        assert query["labelSelector"] == "velda.io/pool"
        assert query["fieldSelector"] == "status.phase=Running"


async def test_changes_are_told_with_what_was_and_what_is(watch: Watch, follower: Follower) -> None:
    watch.send(
        event("ADDED", pod("c", version=11)),
        event("MODIFIED", pod("a", version=12)),
        event("DELETED", pod("b", version=13)),
    )
    assert await follower.several(3) == ["+c@11", "~a@12", "-b@4"]
    assert follower.names == {"a", "c"}


async def test_doubled_and_old_events_change_nothing(watch: Watch, follower: Follower) -> None:
    watch.send(
        event("ADDED", pod("c", version=11)),
        event("ADDED", pod("c", version=11)),
        event("MODIFIED", pod("c", version=12)),
        event("MODIFIED", pod("c", version=11)),
        event("DELETED", pod("c", version=13)),
        event("DELETED", pod("c", version=13)),
        event("ADDED", pod("c", version=11)),
        event("DELETED", pod("never seen", version=14)),
        event("ADDED", pod("last", version=15)),
    )
    assert await follower.several(4) == ["+c@11", "~c@12", "-c@12", "+last@15"]


async def test_another_object_of_the_same_name_is_a_deletion_and_a_creation(watch: Watch, follower: Follower) -> None:
    watch.send(event("MODIFIED", pod("a", version=11, uid="second")))
    assert await follower.several(2) == ["-a@3", "+a@11"]
    watch.send(event("DELETED", pod("a", version=12, uid="first")), event("ADDED", pod("last", version=13)))
    assert await follower.next() == "+last@13"
    assert "a" in follower.names


@pytest.mark.parametrize("listed", [(), (pod("b", version=4),)], ids=["empty", "partial"])
async def test_a_list_that_lacks_what_is_known_is_not_believed_alone(
    watch: Watch, follower: Follower, script: Script, listed: tuple[dict[str, Any], ...]
) -> None:
    whole = page(pod("a", version=3), pod("b", version=4), pod("c", version=12), version=21)
    script.lists = [page(*listed, version=20), whole]
    watch.send(event("ERROR", failure_body(*GONE)))
    assert await follower.next() == "+c@12"  # and nothing was forgotten before
    assert follower.names == {"a", "b", "c"}
    assert (await script.watch()).query["resourceVersion"] == "21"


@pytest.mark.parametrize("how", [GONE, FUTURE, (410, "Gone", "")])
@pytest.mark.parametrize("in_stream", [True, False])
async def test_a_version_that_cannot_be_watched_from_means_a_new_list(
    watch: Watch, follower: Follower, script: Script, how: tuple[int, str, str], in_stream: bool
) -> None:
    """The list is compared with what is known: what was missed is told as if it had been watched."""
    script.lists = [page(pod("a", version=30), pod("c", version=31), version=40)]
    if in_stream:
        watch.send(event("ERROR", failure_body(*how)))
    else:
        script.refusals = [failure(*how)]
        watch.end()
    assert set(await follower.several(3)) == {"~a@30", "+c@31", "-b@4"}
    assert (await script.watch()).query["resourceVersion"] == "40"
    assert len(script.listed) == 3  # b was missing, and looked for again


async def test_after_a_restore_of_etcd_lower_versions_are_taken(
    watch: Watch, follower: Follower, script: Script
) -> None:
    script.lists = [page(pod("a", version=2), version=2)]
    watch.send(event("ERROR", failure_body(*FUTURE)))
    assert await follower.several(2) == ["-b@4", "~a@2"]
    (await script.watch()).send(event("ADDED", pod("c", version=3)))
    assert await follower.next() == "+c@3"


@pytest.mark.parametrize(
    "broken",
    [
        failure(500, "InternalError"),
        failure(429, "TooManyRequests"),
        failure(403, "Forbidden"),
        None,
        answer(b'{"metadata": {"resourceVersion": "50"}, "items": [{'),
        answer({}),
        answer({"kind": "Status", "status": "Success"}),
        answer({"metadata": {"resourceVersion": "50"}, "items": [{"metadata": {"name": 7}}]}),
    ],
    ids=["500", "429", "403", "cut", "truncated", "empty object", "a Status", "nameless"],
)
async def test_a_page_that_fails_never_yields_a_deletion(
    watch: Watch, follower: Follower, script: Script, broken: web.StreamResponse | None
) -> None:
    # What is dropped without an answer is a GET, which aiohttp sends once more by itself.
    failing = [broken] if broken else [None, None]
    whole = [page(pod("a", version=3), token="more"), page(pod("b", version=4), pod("last", version=30), version=40)]
    script.lists = [page(pod("a", version=3), token="more"), *failing, *whole]
    watch.send(event("ERROR", failure_body(*GONE)))
    assert await follower.next() == "+last@30"
    assert follower.names == {"a", "b", "last"}


async def test_a_whole_list_that_is_empty_deletes_all(watch: Watch, follower: Follower, script: Script) -> None:
    script.lists = [page(version=40)]
    watch.send(event("ERROR", failure_body(*GONE)))
    assert set(await follower.several(2)) == {"-a@3", "-b@4"}
    assert not follower.names


async def test_items_may_be_null(follower: Follower, script: Script) -> None:
    """As Go writes an empty slice."""
    script.lists = [answer({"metadata": {"resourceVersion": "7"}, "items": None})]
    async with follower.running():
        await follower.synced()


async def test_an_expired_page_means_starting_over(follower: Follower, script: Script) -> None:
    expired = failure(410, "Expired", "The provided continue parameter is too old")
    script.lists = [page(pod("a"), token="one"), expired, page(pod("b"), token="two"), page(pod("c"))]
    async with follower.running():
        await follower.synced()
    assert follower.names == {"b", "c"}
    assert [query.get("continue") for query in script.listed] == [None, "one", None, "two"]


async def test_a_watch_that_ends_goes_on_from_the_last_event(watch: Watch, follower: Follower, script: Script) -> None:
    watch.send(event("ADDED", pod("c", version=11)))
    watch.end()
    second = await script.watch()
    assert second.query["resourceVersion"] == "11"
    second.send(bookmark(90))
    second.end()
    assert (await script.watch()).query["resourceVersion"] == "90"
    assert len(script.listed) == 1


async def test_a_watch_cut_in_the_middle_of_a_line_loses_nothing(
    watch: Watch, follower: Follower, script: Script
) -> None:
    line = event("ADDED", pod("c", version=11))
    watch.send(line[:20])
    watch.cut()
    second = await script.watch()
    assert second.query["resourceVersion"] == "10"
    second.send(line[:20], line[20:])
    assert await follower.next() == "+c@11"


async def test_a_silent_watch_is_begun_again_without_alarm(client: Client, script: Script) -> None:
    """With a list, for a version that etcd has lost by being restored is watched in silence for ever."""
    script.lists = [page(pod("a")), *(page(pod("a"), pod("b"), version=20) for _ in range(100))]
    follower = Follower(client, silence=0.2)
    with structlog.testing.capture_logs() as logs:
        async with follower.running():
            first = await script.watch()
            assert await follower.several(2) == ["+a@10", "+b@10"]
            await asyncio.wait_for(first.closed.wait(), TIMEOUT)
    assert not [entry for entry in logs if entry["log_level"] in ("warning", "error")]


async def test_the_connection_of_a_watch_is_closed_with_it(watch: Watch, follower: Follower, script: Script) -> None:
    script.lists = [page(pod("a", version=3), pod("b", version=4))]
    watch.send(event("ERROR", failure_body(*GONE)))
    await script.watch()
    await asyncio.wait_for(watch.closed.wait(), TIMEOUT)


async def test_a_refused_watch_is_tried_again_from_where_it_was(
    watch: Watch, follower: Follower, script: Script
) -> None:
    script.refusals = [failure(500, "InternalError"), failure(429, "TooManyRequests"), failure(503)]
    watch.end()
    again = await script.watch()
    assert again.query["resourceVersion"] == "10"
    assert len(script.listed) == 1


async def test_a_request_that_is_not_taken_is_not_sent_for_ever(
    watch: Watch, follower: Follower, script: Script
) -> None:
    script.refusals = [failure(400, "BadRequest", "Invalid value: resourceVersion")]
    script.lists = [page(pod("a", version=3), pod("b", version=4), version=60)]
    watch.end()
    assert (await script.watch()).query["resourceVersion"] == "60"


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "ADDED", "object": \n',
        b"no JSON\n",
        b'{"type": "ADDED", "object": "\xff"}\n',
        event("ERROR", "no Status"),
        event("ERROR", failure_body(500, "InternalError", "the cache is out of order")),
        event("BOOKMARK", []),
        event("ADDED", {"metadata": "none"}),
    ],
    ids=["half", "text", "no UTF-8", "no Status", "error", "bookmark", "nameless"],
)
async def test_a_line_that_says_nothing_means_a_new_list(
    watch: Watch, follower: Follower, script: Script, line: bytes
) -> None:
    script.lists = [page(pod("a", version=3), pod("b", version=4), pod("last", version=30), version=40)]
    watch.send(line)
    assert await follower.next() == "+last@30"


async def test_an_object_that_cannot_be_read_stops_no_other(follower: Follower, script: Script) -> None:
    bad: dict[str, Any] = pod("bad", version=5, status="text")
    script.lists = [page(pod("a"), bad, pod("b"))]
    async with follower.running():
        watch = await script.watch()
        assert follower.names == {"a", "b"}
        watch.send(event("ADDED", pod("worse", version=12, spec=3)), event("ADDED", pod("c", version=13)))
        watch.send(event("MODIFIED", pod("bad", version=14)), event("DELETED", pod("b", version=15, status="text")))
        assert await follower.several(5) == ["+a@10", "+b@10", "+c@13", "+bad@14", "-b@10"]


async def test_an_object_that_becomes_unreadable_stays_as_it_was(
    watch: Watch, follower: Follower, script: Script
) -> None:
    script.lists = [page(pod("a", version=11, status=1), pod("last", version=12), version=20)]
    watch.send(event("MODIFIED", pod("a", version=11, status=1)), event("ERROR", failure_body(*GONE)))
    assert await follower.several(2) == ["-b@4", "+last@12"]
    known = follower.get("a")
    assert known
    assert known.metadata.resource_version == "3"


async def test_an_unreadable_object_of_the_same_name_is_another(watch: Watch, follower: Follower) -> None:
    watch.send(event("MODIFIED", pod("a", version=11, uid="second", status=1)))
    assert await follower.next() == "-a@3"


async def test_an_event_of_two_mebibytes_arrives(watch: Watch, follower: Follower) -> None:
    big = pod("big", version=11)
    big["metadata"]["annotations"] = {"note": "x" * (2 << 20)}
    watch.send(event("ADDED", big), event("ADDED", pod("c", version=12)))
    assert await follower.several(2) == ["+big@11", "+c@12"]
    known = follower.get("big")
    assert known
    assert len(known.metadata.annotation("note")) == 2 << 20


async def test_an_event_that_is_too_long_is_not_asked_for_again(
    watch: Watch, follower: Follower, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "LINE_LIMIT", 1000)
    script.lists = [page(pod("a", version=3), pod("b", version=4), version=40)]
    watch.send(b"x" * 2000)
    assert (await script.watch()).query["resourceVersion"] == "40"


async def test_a_listener_that_fails_stops_nothing(client: Client, script: Script) -> None:
    told: list[str] = []
    all_told = asyncio.Event()

    def changed(old: object, new: Any) -> None:
        told.append(new.metadata.name)
        if len(told) == 2:
            all_told.set()
        raise RuntimeError("listener")

    script.lists = [page(pod("a"), pod("b"))]
    informer = module.Informer(client, path=PATH, type=Pod, on_change=changed)
    task = asyncio.create_task(informer.run())
    with structlog.testing.capture_logs() as logs:
        await asyncio.wait_for(all_told.wait(), TIMEOUT)
        await script.watch()
    task.cancel()
    await asyncio.wait({task})
    assert [entry["event"] for entry in logs].count("change not handled") == 2


class Pauses:
    """The pauses that the informer makes, not waited for; to be made before it runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[float] = []
        self._sleep = asyncio.sleep
        monkeypatch.setattr(module, "RETRY_FIRST", 1.0)
        monkeypatch.setattr(random, "random", lambda: 1.0)
        monkeypatch.setattr(asyncio, "sleep", self._pause)

    async def _pause(self, seconds: float) -> None:
        if seconds >= 1.0:
            self.taken.append(seconds)
        await self._sleep(0)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    return Pauses(monkeypatch)


async def test_a_storm_of_relists_backs_off_and_a_single_one_does_not_wait(
    pauses: Pauses, watch: Watch, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.lists = [page(version=version) for version in range(20, 30)]
    script.refusals = [failure(*GONE) for _ in range(8)]
    watch.send(event("ERROR", failure_body(*GONE)))
    await script.watch()
    assert pauses.taken == [1, 2, 4, 8, 16, 30, 30, 30, 30]


async def test_a_server_that_ends_every_watch_at_once_is_not_stormed(
    pauses: Pauses, watch: Watch, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHORT", 3600.0)
    watch.end()
    for _ in range(2):
        (await script.watch()).end()
    await script.watch()
    assert pauses.taken == [1, 2, 4]


async def test_after_a_time_of_health_the_wait_is_short_again(
    pauses: Pauses, watch: Watch, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEALTHY", 0.0)
    script.lists = [page(version=version) for version in range(20, 23)]
    script.refusals = [failure(*GONE) for _ in range(2)]
    watch.send(event("ERROR", failure_body(*GONE)))
    await script.watch()
    assert pauses.taken == [1, 1, 1]


# On the real API server.


class Namespace:
    """Pods of one pool, made and removed in a namespace of their own."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.path = paths.pods(name)

    async def create(self, *names: str, pool: str = "pool") -> None:
        for name in names:
            meta = {"name": name, "labels": {POOL_LABEL: pool}}
            # No node is ever found for it, so that nothing but the test changes it.
            spec = {"containers": [{"name": "agent", "image": "none"}], "schedulerName": "none"}
            await self.client.create(self.path, {"metadata": meta, "spec": spec})

    async def relabel(self, name: str, pool: str | None) -> None:
        await self.client.merge_patch(f"{self.path}/{name}", {"metadata": {"labels": {POOL_LABEL: pool}}})

    async def delete(self, name: str) -> None:
        await self.client.delete(f"{self.path}/{name}", grace_seconds=0)


@pytest.fixture
async def namespace(cluster: Cluster) -> AsyncIterator[Namespace]:
    async with cluster.client() as client:
        yield Namespace(client, cluster.namespace())


async def test_real_pods_are_followed(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    await namespace.create("a", "b", "c", "d", "e")
    follower = Follower(namespace.client, namespace.path, label_selector=f"{POOL_LABEL}=pool")
    async with follower.running():
        await follower.synced()
        assert follower.names == {"a", "b", "c", "d", "e"}
        await follower.several(5)
        await namespace.create("f")
        await namespace.create("elsewhere", pool="other")
        await namespace.relabel("a", None)
        await namespace.relabel("elsewhere", "pool")
        await namespace.delete("b")
        seen: list[str] = []
        while "-b" not in seen:
            seen.append((await follower.next()).partition("@")[0])
    assert [change for change in seen if not change.startswith("~")] == ["+f", "-a", "+elsewhere", "-b"]


@pytest.mark.parametrize("version", ["1", "999999999999"], ids=["too old", "from the future"])
async def test_a_real_version_that_cannot_be_watched_means_a_new_list(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Whichever way the API server says it; of a version from the future it says nothing at all."""
    watch, asked = namespace.client.watch, []

    def watch_elsewhere(path: str, params: dict[str, str], **options: Any) -> Any:
        asked.append(params["resourceVersion"])
        return watch(path, params if len(asked) > 1 else params | {"resourceVersion": version}, **options)

    monkeypatch.setattr(namespace.client, "watch", watch_elsewhere)
    await namespace.create("a")
    follower = Follower(namespace.client, namespace.path, label_selector=POOL_LABEL, silence=2.0)
    async with follower.running():
        assert (await follower.next()).startswith("+a@")
        await namespace.create("b")
        assert (await follower.next()).startswith("+b@")
    assert follower.names == {"a", "b"}
