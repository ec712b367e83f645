"""Leading begins and ends with the Lease, whatever becomes of the way to the API server; at last on a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from unittest.mock import Mock

import msgspec
import pytest

from app.core.lease import Lease
from app.kube import leader as module
from app.kube import paths
from app.kube.client import Client
from app.kube.leader import LeaderElector
from app.model.meta import NamespacedName
from app.settings import LeaderElection
from tests.kube.faults import FaultServer
from tests.kube.leases import Door, LeaseStore
from tests.support.cluster import Cluster

TIMEOUT = 30.0
QUICK = LeaderElection(lease_duration=10, renew_deadline=1, retry_period=0.05)
"""The Lease outlives its deadline by far, so that only a Lease that was released can change hands in a test's time."""


class Replica:
    """Runs an elector, and tells what it leads in ``told``, which replicas may share."""

    def __init__(
        self,
        client: Client,
        name: str,
        told: list[str],
        settings: LeaderElection,
        namespace: str,
        *,
        owner: str | None = None,
    ) -> None:
        self.elector = LeaderElector(client, namespace=namespace, identity=name, settings=settings, owner=owner)
        self.name = name
        self.told = told
        self.leads = asyncio.Event()
        self.ended = asyncio.Event()
        self.work: Callable[[], object] = lambda: None
        self.clearing = asyncio.Event()
        self.clearing.set()
        self.task = asyncio.create_task(self.elector.run(self._lead))

    async def _lead(self) -> None:
        assert self.elector.leading
        self.told.append(f"{self.name} begins")
        self.leads.set()
        try:
            self.work()
            await asyncio.Event().wait()
        finally:
            await self.clearing.wait()
            self.told.append(f"{self.name} ends")
            self.ended.set()

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


class Bench:
    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.store = LeaseStore()
        self.told: list[str] = []

    async def replica(self, name: str, settings: LeaderElection = QUICK) -> tuple[Replica, Door]:
        """One more contender, with a way to the Lease of its own."""
        door = self.store.door()
        server = await self._stack.enter_async_context(FaultServer(door.handler()))
        client = await self._stack.enter_async_context(server.client())
        replica = Replica(client, name, self.told, settings, "ns")
        self._stack.push_async_callback(replica.stop)
        return replica, door


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack, asyncio.timeout(TIMEOUT):
        yield Bench(stack)


async def test_a_missing_lease_is_made(bench: Bench) -> None:
    replica, _ = await bench.replica("a")
    await replica.leads.wait()
    assert bench.store.holder == "a"


async def test_the_second_waits_until_the_first_has_ended_and_released(bench: Bench) -> None:
    first, _ = await bench.replica("a")
    await first.leads.wait()
    second, door = await bench.replica("b")
    await bench.store.until(lambda: door.requests >= 5)
    assert not second.elector.leading
    await first.stop()
    await second.leads.wait()
    assert bench.told == ["a begins", "a ends", "b begins"]
    assert not first.elector.leading


async def test_the_lease_is_kept_while_the_term_clears_up(bench: Bench) -> None:
    first, _ = await bench.replica("a", LeaderElection(lease_duration=1, renew_deadline=0.8, retry_period=0.05))
    first.clearing.clear()
    await first.leads.wait()
    second, _ = await bench.replica("b", LeaderElection(lease_duration=1, renew_deadline=0.8, retry_period=0.05))
    stopping = asyncio.create_task(first.stop())
    version = bench.store.version
    await bench.store.until(lambda: bench.store.version >= version + 30)  # 30 renewals outlast the Lease
    assert bench.store.holder == "a"
    first.clearing.set()
    await stopping
    await second.leads.wait()
    assert bench.told == ["a begins", "a ends", "b begins"]


@pytest.mark.parametrize("state", ["silent", "broken", "garbage"])
async def test_leading_ends_before_another_can_begin_when_the_api_is_out_of_reach(bench: Bench, state: str) -> None:
    settings = LeaderElection(lease_duration=2, renew_deadline=1, retry_period=0.05)
    first, door = await bench.replica("a", settings)
    await first.leads.wait()
    second, _ = await bench.replica("b", settings)
    door.state = state
    await second.leads.wait()
    assert bench.told == ["a begins", "a ends", "b begins"]


async def test_a_leader_that_was_stopped_knows_by_the_clock_before_anything_else_runs(bench: Bench) -> None:
    """All that was to run when the process was stopped runs before its timers when it wakes up."""
    settings = LeaderElection(lease_duration=0.5, renew_deadline=0.4, retry_period=0.05)
    first, _ = await bench.replica("a", settings)
    await first.leads.wait()
    assert first.elector.holds()
    version = bench.store.version
    time.sleep(0.5)  # noqa: ASYNC251  as a stopped process does nothing else either
    assert first.elector.leading
    assert not first.elector.holds()
    await first.ended.wait()
    assert bench.store.version == version, "nothing was renewed late"


async def test_a_short_outage_is_survived(bench: Bench) -> None:
    replica, door = await bench.replica("a", LeaderElection(lease_duration=60, renew_deadline=30, retry_period=0.05))
    await replica.leads.wait()
    door.state = "broken"
    seen = door.requests
    await bench.store.until(lambda: door.requests >= seen + 3)
    door.state = "open"
    version = bench.store.version
    await bench.store.until(lambda: bench.store.version >= version + 2)
    assert bench.told == ["a begins"]


async def test_one_request_that_hangs_leaves_time_for_another(bench: Bench) -> None:
    replica, door = await bench.replica("a", LeaderElection(lease_duration=60, renew_deadline=2, retry_period=0.05))
    await replica.leads.wait()
    door.state = "silent"
    seen = door.requests
    await bench.store.until(lambda: door.requests > seen)
    door.state = "open"
    version = bench.store.version
    await bench.store.until(lambda: bench.store.version >= version + 2)
    assert bench.told == ["a begins"]


async def test_leading_ends_when_the_lease_is_taken(bench: Bench) -> None:
    replica, _ = await bench.replica("a")
    await replica.leads.wait()
    bench.store.put({"holderIdentity": "somebody", "leaseDurationSeconds": 60})
    await replica.ended.wait()
    assert bench.store.holder == "somebody"


async def test_a_deleted_lease_is_made_again(bench: Bench) -> None:
    replica, _ = await bench.replica("a")
    await replica.leads.wait()
    bench.store.lease = None
    await bench.store.until(lambda: bench.store.holder == "a")
    assert bench.told == ["a begins"]


async def test_a_pod_that_restarts_leads_again_at_once(bench: Bench) -> None:
    """Under the identity that it died with, its own Lease is nobody else's to wait for."""
    bench.store.put({"holderIdentity": "a", "leaseDurationSeconds": 3600, "leaseTransitions": 4, "acquireTime": "t"})
    replica, _ = await bench.replica("a")
    await replica.leads.wait()
    assert bench.store.lease
    assert bench.store.lease["spec"]["leaseTransitions"] == 4


async def test_who_loses_the_race_for_a_deleted_lease_ends_before_any_pause(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = LeaderElection(lease_duration=3600, renew_deadline=1800, retry_period=0.05)
    replica, door = await bench.replica("a", settings)
    await replica.leads.wait()
    door.rival = {"holderIdentity": "b", "leaseDurationSeconds": 3600}
    bench.store.lease = None
    await bench.store.until(lambda: door.rival is None)
    pause = asyncio.sleep

    async def pause_for_ever(seconds: float) -> None:
        await (asyncio.Event().wait() if seconds else pause(0))

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", pause_for_ever)
        await asyncio.wait_for(replica.ended.wait(), TIMEOUT)


async def test_what_the_term_raises_ends_the_election_once_the_lease_is_released(bench: Bench) -> None:
    replica, _ = await bench.replica("a")

    def fail() -> None:
        raise ValueError("the term failed")

    replica.work = fail
    with pytest.raises(ValueError, match="the term failed"):
        await replica.task
    assert bench.store.holder == ""
    replica.task = asyncio.create_task(asyncio.sleep(0))


async def test_a_term_that_ends_by_itself_is_followed_by_another(bench: Bench) -> None:
    door = bench.store.door()
    terms = asyncio.Semaphore(0)

    async def lead() -> None:
        terms.release()

    async with FaultServer(door.handler()) as server, server.client() as client:
        elector = LeaderElector(client, namespace="ns", identity="a", settings=QUICK)
        task = asyncio.create_task(elector.run(lead))
        for _ in range(3):
            await terms.acquire()
        task.cancel()
        await asyncio.wait({task})
    assert bench.store.holder == ""


async def test_a_term_that_outlives_its_lease_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    log, told = Mock(), asyncio.Event()
    log.error.side_effect = lambda event, **_: told.set() if "has not ended" in event else None
    monkeypatch.setattr(module, "log", log)
    replica, door = await bench.replica("a", LeaderElection(lease_duration=0.6, renew_deadline=0.3, retry_period=0.05))
    replica.clearing.clear()
    await replica.leads.wait()
    door.state = "broken"
    await told.wait()
    assert replica.elector.leading
    replica.clearing.set()
    await replica.ended.wait()


@pytest.mark.parametrize("owner", ["mine", "gone", None])
async def test_one_of_many_makes_the_lease_which_goes_with_the_release(cluster: Cluster, owner: str | None) -> None:
    namespace, told = cluster.namespace(), list[str]()
    key = NamespacedName(namespace, "velda-apiserver")
    cluster.kubectl("create", "secret", "generic", "mine", f"--namespace={namespace}")
    async with AsyncExitStack() as stack, asyncio.timeout(TIMEOUT):
        clients = [await stack.enter_async_context(cluster.client()) for _ in range(4)]
        replicas = [Replica(client, f"r{n}", told, QUICK, namespace, owner=owner) for n, client in enumerate(clients)]
        for replica in replicas:
            stack.push_async_callback(replica.stop)
        waits = [asyncio.create_task(replica.leads.wait()) for replica in replicas]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        lease = msgspec.json.decode(await clients[0].get(paths.lease(key)), type=Lease)
        assert told == [f"{lease.spec.holder_identity} begins"]
        for wait in waits:
            wait.cancel()
    owners = [(one.kind, one.name) for one in lease.metadata.owner_references]
    assert owners == ([("Secret", "mine")] if owner == "mine" else [])


async def test_two_electors_on_a_lease_that_somebody_made(cluster: Cluster) -> None:
    namespace, told = cluster.namespace(), list[str]()
    key = NamespacedName(namespace, "velda-apiserver")
    async with AsyncExitStack() as stack, asyncio.timeout(TIMEOUT):
        one = await stack.enter_async_context(cluster.client())
        two = await stack.enter_async_context(cluster.client())
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": key.name, "namespace": namespace, "labels": {"app": "velda"}},
        }
        await one.create(paths.leases(namespace), body)
        replicas = [Replica(client, name, told, QUICK, namespace) for client, name in ((one, "a"), (two, "b"))]
        for replica in replicas:
            stack.push_async_callback(replica.stop)
        waits = [asyncio.create_task(replica.leads.wait()) for replica in replicas]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        first, second = sorted(replicas, key=lambda replica: not replica.elector.leading)
        assert told == [f"{first.name} begins"]
        await first.stop()
        await second.leads.wait()
        lease = msgspec.json.decode(await one.get(paths.lease(key)), type=Lease)
        await second.stop()
        await asyncio.gather(*waits)
        left = msgspec.json.decode(await one.get(paths.lease(key)), type=Lease)
    assert told == [f"{name} {what}" for name in (first.name, second.name) for what in ("begins", "ends")]
    assert lease.metadata.labels == {"app": "velda"}
    assert (lease.spec.holder_identity, lease.spec.lease_duration_seconds) == (second.name, 10)
    assert lease.spec.lease_transitions == 2
    assert left.spec.holder_identity == ""
