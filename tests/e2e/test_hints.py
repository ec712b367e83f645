"""What worker pods tell the cluster autoscaler, and whoever counts pods down, follows their sessions."""

from __future__ import annotations

import asyncio

import pytest

from app.model.meta import DELETION_COST, SAFE_TO_EVICT
from tests.e2e.product import Product, Sessions, pool

pytestmark = pytest.mark.e2e


@pytest.fixture
def namespace(velda: Product) -> str:
    return velda.namespace()


def wait(velda: Product, pod: str, key: str, value: str, *, namespace: str) -> None:
    """Until the pod's annotation has that value."""
    path = "{.metadata.annotations." + key.replace(".", r"\.") + "}"
    velda.kubectl("wait", f"pod/{pod}", f"--namespace={namespace}", f"--for=jsonpath={path}={value}", "--timeout=240s")


async def test_an_agent_is_kept_while_it_has_a_session(velda: Product, namespace: str, sessions: Sessions) -> None:
    velda.apply(pool("p", maxReplicas=1), namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=1)
    (found,) = velda.pods("p", namespace=namespace)
    name, notes = found["metadata"]["name"], found["metadata"]["annotations"]
    assert (notes[DELETION_COST], notes[SAFE_TO_EVICT]) == ("0", "true")
    session = await sessions.run(f"{namespace}/p")
    await asyncio.to_thread(wait, velda, name, DELETION_COST, "1", namespace=namespace)
    await asyncio.to_thread(wait, velda, name, SAFE_TO_EVICT, "false", namespace=namespace)
    await sessions.end(session)
    await asyncio.to_thread(wait, velda, name, SAFE_TO_EVICT, "true", namespace=namespace)
    await asyncio.to_thread(wait, velda, name, DELETION_COST, "0", namespace=namespace)


async def test_what_the_template_says_of_eviction_stays(velda: Product, namespace: str, sessions: Sessions) -> None:
    manifest = pool("p", maxReplicas=1)
    manifest["spec"]["template"]["metadata"]["annotations"] = {SAFE_TO_EVICT: "true"}
    velda.apply(manifest, namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=1)
    await sessions.run(f"{namespace}/p")
    (found,) = velda.pods("p", namespace=namespace)
    await asyncio.to_thread(wait, velda, found["metadata"]["name"], DELETION_COST, "1", namespace=namespace)
    (found,) = velda.pods("p", namespace=namespace)
    assert found["metadata"]["annotations"][SAFE_TO_EVICT] == "true"
