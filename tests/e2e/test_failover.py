"""The leader dies, or stands still and comes back: another leads, agents and clients follow, nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import grpc
import pytest

from tests.e2e.product import NAMESPACE, Product, Sessions, pool
from tests.support.cluster import Fleet

pytestmark = pytest.mark.e2e

IN_RELEASE = f"--namespace={NAMESPACE}"
SERVERS = "--selector=app.kubernetes.io/component=server"
PAUSE = 0.5
"""Seconds after which a client that was told UNAVAILABLE asks again."""

T = TypeVar("T")


@pytest.fixture
def namespace(velda: Product) -> str:
    return velda.namespace()


def replicas(velda: Product) -> tuple[str, str]:
    """The pods of the leader and of the other; the broker's Service selects the leader's by its label."""
    velda.kubectl("rollout", "status", "deployment/velda-apiserver", IN_RELEASE, "--timeout=240s")
    found = [pod["metadata"] for pod in velda.stage.get("pods", IN_RELEASE, SERVERS)["items"]]
    staying = [meta for meta in found if "deletionTimestamp" not in meta]
    first, second = sorted(staying, key=lambda meta: "velda.io/role" not in meta["labels"])
    assert first["labels"]["velda.io/role"] == "leader"
    return first["name"], second["name"]


def leads(velda: Product, pod: str) -> None:
    """Wait until it does: a Lease's duration of 10 s, and more on a busy machine."""
    label = "--for=jsonpath={.metadata.labels.velda\\.io/role}=leader"
    velda.kubectl("wait", f"pod/{pod}", IN_RELEASE, label, "--timeout=240s")


def signalled(fleet: Fleet, pod: str, number: signal.Signals) -> None:
    processes = fleet.processes(pod)
    assert processes
    for process in processes:
        os.kill(process, number)


def uids(velda: Product, namespace: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in velda.pods("p", namespace=namespace)}


def grown(velda: Product, namespace: str) -> None:
    """Make the pool have four agents. Each connection that the API server has kept to a webhook that stands still costs
    it a timeout, until it opens another.
    """
    patch = ("--type=merge", '--patch={"spec": {"autoscaler": {"minReplicas": 4}}}')
    for _ in range(5):
        if not velda.kubectl("patch", "agentpool", "p", f"-n={namespace}", *patch, check=False).returncode:
            return
    raise AssertionError("the pool cannot be changed")


async def repeated(ask: Callable[[], Awaitable[T]]) -> T:
    """As a client does that is told UNAVAILABLE: ask for the same again."""
    while True:
        try:
            return await ask()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(PAUSE)


@pytest.mark.parametrize("told", [True, False], ids=["told to stop", "killed"])
async def test_a_leader_that_goes_is_followed_with_its_sessions_and_each_request_is_served_once(
    velda: Product, fleet: Fleet, namespace: str, sessions: Sessions, *, told: bool
) -> None:
    name = f"{namespace}/p"
    velda.apply(pool("p", maxReplicas=2, idleDecaySecond=3600), namespace=namespace)
    running = await asyncio.gather(*(sessions.run(name) for _ in range(2)))
    ask = partial(sessions.run, name, session_id=f"queued-{namespace}", timeout=60)
    queued = asyncio.create_task(ask())
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, pendingSessions=1, runningReplicas=2)
    first, second = await asyncio.to_thread(replicas, velda)
    before = uids(velda, namespace)
    how = ["--wait=false"]
    if not told:
        # Stopped, so that it cannot take leave; the pod goes at once, so that it is not started again under its name.
        signalled(fleet, first, signal.SIGSTOP)
        how = ["--force", "--grace-period=0"]
    await asyncio.to_thread(velda.kubectl, "delete", "pod", first, IN_RELEASE, *how)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await queued
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    again = asyncio.create_task(repeated(ask))
    await asyncio.to_thread(leads, velda, second)
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, timeout=60, pendingSessions=1, runningReplicas=2)
    await repeated(partial(sessions.end, running[0]))
    assert (await again).session_id == f"queued-{namespace}"
    assert uids(velda, namespace) == before
    found = [each for each in await sessions.list() if each.pool in ("p", name)]
    assert {each.session_id for each in found} == {running[1].session_id, f"queued-{namespace}"}
    assert len(found) == 2
    assert "Deleted" not in velda.events("p", namespace=namespace)


async def test_a_leader_that_stood_still_for_longer_than_its_lease_does_nothing_when_it_wakes_up(
    velda: Product, fleet: Fleet, namespace: str, sessions: Sessions
) -> None:
    name = f"{namespace}/p"
    velda.apply(pool("p", maxReplicas=4, maxIdle=4, idleDecaySecond=3600), namespace=namespace)
    running = await sessions.run(name)
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, runningReplicas=1, idleReplicas=1)
    first, second = await asyncio.to_thread(replicas, velda)
    begun = fleet.log(first).count("no longer leading")
    signalled(fleet, first, signal.SIGSTOP)
    try:
        await asyncio.to_thread(leads, velda, second)
        velda.kubectl("wait", f"pod/{first}", IN_RELEASE, "--for=condition=Ready=false", "--timeout=240s")
        await asyncio.to_thread(grown, velda, namespace)
        await asyncio.to_thread(velda.wait, "p", namespace=namespace, replicas=4)
        before = uids(velda, namespace)
    finally:
        signalled(fleet, first, signal.SIGCONT)
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, timeout=60, runningReplicas=1, idleReplicas=3)
    assert fleet.log(first).count("no longer leading") == begun + 1
    assert uids(velda, namespace) == before, "none is too many, and none was taken away"
    assert "Deleted" not in velda.events("p", namespace=namespace)
    assert await asyncio.to_thread(replicas, velda) == (second, first)
    assert [each.session_id for each in await sessions.list() if each.pool in ("p", name)] == [running.session_id]
