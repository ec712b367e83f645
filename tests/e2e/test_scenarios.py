"""The scaling scenarios on the whole product: real API server, real protocol, real pods."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from tests.e2e.product import Product, Sessions, pool
from tests.support.cluster import Fleet
from tests.support.running import CHECKOUT

pytestmark = pytest.mark.e2e


@pytest.fixture
def namespace(velda: Product) -> str:
    return velda.namespace()


async def test_1_2_a_new_pool_gets_one_agent_and_no_more_when_it_joins(velda: Product, namespace: str) -> None:
    velda.apply(pool("p"), namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=1)
    assert len(velda.pods("p", namespace=namespace)) == 1
    velda.condition("p", "Ready", "True", namespace=namespace)


async def test_3_4_a_session_takes_the_idle_agent_and_spare_ones_decay(
    velda: Product, namespace: str, sessions: Sessions
) -> None:
    velda.apply(pool("p", idleDecaySecond=1), namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=1)
    (first,) = velda.pods("p", namespace=namespace)
    session = await sessions.run(f"{namespace}/p")
    assert session.ssh_connection.host == first["status"]["podIP"]
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, runningReplicas=1, idleReplicas=1)
    await sessions.end(session)
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, replicas=1, idleReplicas=1)
    assert "Deleted" in velda.events("p", namespace=namespace)


async def test_5_idle_above_the_maximum_goes_at_once(velda: Product, namespace: str, sessions: Sessions) -> None:
    velda.apply(pool("p", idleDecaySecond=3600), namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=1)
    running = await asyncio.gather(*(sessions.run(f"{namespace}/p") for _ in range(3)))
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, runningReplicas=3, idleReplicas=1)
    for session in running:
        await sessions.end(session)
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, replicas=2, idleReplicas=2)


async def test_who_waits_is_told_that_no_node_has_room(velda: Product, namespace: str, sessions: Sessions) -> None:
    manifest = pool("p", minIdle=0)
    manifest["spec"]["template"]["spec"]["nodeSelector"] = {"nowhere": "yes"}
    velda.apply(manifest, namespace=namespace)
    waiting = sessions.request(f"{namespace}/p")
    assert "Unschedulable" in await sessions.trouble(f"{namespace}/p")
    waiting.cancel()


async def test_6_at_the_maximum_sessions_queue_by_priority_then_arrival(
    velda: Product, namespace: str, sessions: Sessions
) -> None:
    velda.apply(pool("p", maxReplicas=2, idleDecaySecond=3600), namespace=namespace)
    running = await asyncio.gather(*(sessions.run(f"{namespace}/p") for _ in range(2)))
    late = sessions.request(f"{namespace}/p", session_id="late")
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, pendingSessions=1)
    urgent = sessions.request(f"{namespace}/p", session_id="urgent", priority=1)
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, pendingSessions=2)
    assert velda.status("p", namespace=namespace)["replicas"] == 2
    await sessions.end(running[0])
    assert (await urgent).session_id == "urgent"
    assert not late.done()
    await sessions.end(running[1])
    await late


async def test_10_11_after_a_restart_nothing_is_done_while_agents_may_return_and_the_lost_one_goes_in_the_end(
    velda: Product, fleet: Fleet, namespace: str, sessions: Sessions
) -> None:
    velda.apply(pool("p", minReplicas=3, maxIdle=5, killUnknownAfterSecond=30), namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=3)
    session = await sessions.run(f"{namespace}/p")
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, runningReplicas=1, idleReplicas=2)
    before = {pod["metadata"]["uid"]: pod for pod in velda.pods("p", namespace=namespace)}
    host = session.ssh_connection.host
    lost = next(pod for pod in before.values() if pod["status"]["podIP"] != host)["metadata"]["name"]
    fleet.decide(lost, "dead", namespace=namespace)
    velda.wait("p", namespace=namespace, unknownReplicas=1)
    await asyncio.to_thread(velda.restart)
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, unknownReplicas=1, runningReplicas=1)
    assert {pod["metadata"]["uid"] for pod in velda.pods("p", namespace=namespace)} == before.keys()
    await asyncio.to_thread(fleet.kubectl, "wait", f"pod/{lost}", f"-n={namespace}", "--for=delete", "--timeout=80s")
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, unknownReplicas=0)
    running = [pod for pod in velda.pods("p", namespace=namespace) if pod["status"].get("podIP") == host]
    assert running[0]["metadata"]["uid"] in before
    found = await sessions.list()
    assert [each.status for each in found if each.session_id == session.session_id] == [sessions.RUNNING]


async def test_12_a_quota_is_shown_not_hammered_and_used_soon_after_it_is_raised(
    velda: Product, namespace: str
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    velda.apply(quota, namespace=namespace)
    velda.kubectl(
        "wait", "resourcequota/few", f"-n={namespace}", "--for=jsonpath={.status.hard.pods}=1", "--timeout=20s"
    )
    velda.apply(pool("p", minIdle=3, maxIdle=3), namespace=namespace)
    velda.wait("p", namespace=namespace, replicas=1)
    velda.kubectl(
        "wait", "agentpool/p", f"-n={namespace}", "--for=jsonpath={.status.lastError.cause}=quota", "--timeout=20s"
    )
    assert "exceeded quota" in velda.status("p", namespace=namespace)["lastError"]["message"]
    velda.condition("p", "Ready", "False", namespace=namespace)
    quota["spec"] = {"hard": {"pods": "10"}}
    velda.apply(quota, namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=3)


async def test_15_a_deleted_pool_ends_its_sessions_and_leaves_nothing(
    velda: Product, namespace: str, sessions: Sessions
) -> None:
    velda.apply(pool("p"), namespace=namespace)
    await asyncio.gather(*(sessions.run(f"{namespace}/p") for _ in range(2)))
    await asyncio.to_thread(velda.kubectl, "delete", "agentpool", "p", f"-n={namespace}", "--timeout=240s")
    assert velda.pods("p", namespace=namespace) == []
    assert [each for each in await sessions.list() if each.pool in ("p", f"{namespace}/p")] == []
    left = velda.stage.get("configmaps,controllerrevisions.apps", f"--namespace={namespace}")["items"]
    assert [item["metadata"]["name"] for item in left] == ["kube-root-ca.crt"]


def test_explain_says_why_by_the_current_context(velda: Product, namespace: str) -> None:
    velda.apply(pool("p"), namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=1)
    command = [sys.executable, "-m", "app", "explain", "p", "-n", namespace]
    environment = {**os.environ, "KUBECONFIG": str(velda.stage.kubeconfig)}
    done = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert f"{namespace}/p has 1 agent of at most 5 (1 idle)" in done.stdout
    assert "below minIdle 1" in done.stdout
    command[4] = "none"
    failed = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert f"AgentPool {namespace}/none" in failed.stderr
