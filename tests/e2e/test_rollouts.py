"""A changed template on the whole product: sessions go on, a bad version is given up, broken pods are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.product import Product, Sessions, pool
from tests.support.workers import FATE

pytestmark = pytest.mark.e2e


def version(number: int, *, joins: bool = True, rollout: dict[str, Any] | None = None, **limits: int) -> dict[str, Any]:
    manifest = pool("p", template=None, **limits)
    template = manifest["spec"]["template"]
    template["metadata"]["labels"]["version"] = str(number)
    if not joins:
        template["metadata"]["annotations"] = {FATE: "absent"}
    manifest["spec"]["rollout"] = rollout or {}
    return manifest


def versions(velda: Product, namespace: str) -> list[str]:
    return sorted(pod["metadata"]["labels"]["version"] for pod in velda.pods("p", namespace=namespace))


async def test_idle_agents_are_replaced_and_the_running_one_when_its_session_ends(
    velda: Product, sessions: Sessions
) -> None:
    namespace = velda.namespace()
    velda.apply(version(1, minIdle=3, maxIdle=4, idleDecaySecond=2), namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=3)
    session = await sessions.run(f"{namespace}/p")
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, runningReplicas=1, idleReplicas=3)
    velda.apply(version(2, minIdle=3, maxIdle=4, idleDecaySecond=2), namespace=namespace)
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, outdatedReplicas=1, idleReplicas=3)
    assert versions(velda, namespace).count("1") == 1
    await sessions.end(session)
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, outdatedReplicas=0, replicas=3, idleReplicas=3)
    assert versions(velda, namespace) == ["2"] * 3


async def test_a_version_that_does_not_join_is_given_up_and_the_old_agents_serve_on(
    velda: Product, sessions: Sessions
) -> None:
    namespace = velda.namespace()
    velda.apply(version(1, minIdle=2), namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=2)
    before = {pod["metadata"]["uid"] for pod in velda.pods("p", namespace=namespace)}
    bad = version(2, joins=False, rollout={"progressDeadlineSecond": 6}, minIdle=2, joinTimeoutSecond=3)
    velda.apply(bad, namespace=namespace)
    await asyncio.to_thread(velda.condition, "p", "Stalled", "True", namespace=namespace, timeout=60)
    told = {c["type"]: c for c in velda.status("p", namespace=namespace)["conditions"]}["Stalled"]
    assert told["reason"] == "RolledBack"
    assert "has not joined" in told["message"]
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, replicas=2, idleReplicas=2)
    assert {pod["metadata"]["uid"] for pod in velda.pods("p", namespace=namespace)} == before
    assert "RolledBack" in velda.events("p", namespace=namespace)
    await sessions.run(f"{namespace}/p")
    await asyncio.to_thread(velda.wait, "p", namespace=namespace, runningReplicas=1, idleReplicas=2)
    assert versions(velda, namespace) == ["1"] * 3


def test_pods_whose_image_cannot_be_pulled_are_told_with_the_pods_own_words(velda: Product) -> None:
    namespace = velda.namespace()
    velda.apply(version(1, joins=False, minIdle=1), namespace=namespace)
    velda.kubectl("wait", "pod", "-l=app=p", f"-n={namespace}", "--for=create", "--timeout=20s")
    (pod,) = velda.pods("p", namespace=namespace)
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "veldaio/agent:latest"'}
    state = [
        {"name": "agent", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
    ]
    patch = {"status": {"phase": "Pending", "containerStatuses": state}}
    name = pod["metadata"]["name"]
    velda.kubectl("patch", "pod", name, f"-n={namespace}", "--subresource=status", "-p", json.dumps(patch))
    velda.kubectl(
        "wait", "agentpool/p", f"-n={namespace}", "--for=jsonpath={.status.lastError.cause}=image", "--timeout=240s"
    )
    velda.kubectl("wait", f"pod/{name}", f"-n={namespace}", "--for=delete", "--timeout=240s")
    assert "ImagePullBackOff" in velda.status("p", namespace=namespace)["lastError"]["message"]
    assert "AgentLost" in velda.events("p", namespace=namespace)
