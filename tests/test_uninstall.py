"""The hook of `helm uninstall` on a real API server, with nothing else of ours running."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from app import uninstall
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import FINALIZER, MANAGED_BY_LABEL, MANAGER, POOL_LABEL
from app.uninstall import delete_config_maps, delete_dependents, delete_pools, release_pools, run
from tests.support.cluster import Cluster

OTHERS = "example.com/other"


@pytest.fixture(scope="module")
def crd(cluster: Cluster) -> Cluster:
    cluster.install_crd()
    return cluster


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops waiting too early has stopped before the test looks."""
    monkeypatch.setattr(uninstall, "POLL", 0.01)


@pytest.fixture
def namespace(crd: Cluster) -> str:
    return crd.namespace()


@pytest.fixture
async def client(crd: Cluster) -> AsyncIterator[Client]:
    async with crd.client() as client:
        yield client


def make_pool(crd: Cluster, namespace: str, name: str, *finalizers: str) -> None:
    container = {"name": "agent", "image": "veldaio/agent:latest"}
    manifest = {
        "apiVersion": "velda.io/v1",
        "kind": "AgentPool",
        "metadata": {"name": name, "namespace": namespace, "finalizers": list(finalizers)},
        "spec": {
            "autoscaler": {"maxReplicas": 1, "minIdle": 0, "maxIdle": 1},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }
    crd.kubectl("apply", "-f", "-", input=json.dumps(manifest))


def pools(crd: Cluster, namespace: str) -> dict[str, list[str]]:
    """Name → finalizers."""
    found = crd.get("agentpools", f"-n={namespace}")["items"]
    return {item["metadata"]["name"]: item["metadata"].get("finalizers", []) for item in found}


def unhold(crd: Cluster, namespace: str, name: str, *finalizers: str) -> None:
    patch = json.dumps({"metadata": {"finalizers": list(finalizers)}})
    crd.kubectl("patch", "agentpool", name, f"-n={namespace}", "--type=merge", f"--patch={patch}")


class Meddler:
    """A client beside which somebody else acts: ``before`` or ``after`` each patch, ``after`` each deletion."""

    def __init__(self, client: Client, **acts: Callable[[], None]) -> None:
        self._client = client
        self._acts = acts
        self.get = client.get

    async def merge_patch(self, path: str, body: Any) -> bytes:
        return await self._between(self._client.merge_patch(path, body))

    async def delete(self, path: str, **options: Any) -> bytes:
        return await self._between(self._client.delete(path, **options))

    async def _between(self, request: Awaitable[bytes]) -> bytes:
        await asyncio.to_thread(self._acts.get("before", lambda: None))
        try:
            return await request
        finally:
            await asyncio.to_thread(self._acts.get("after", lambda: None))


async def test_pools_are_waited_for_while_the_controller_ends_their_agents(
    crd: Cluster, client: Client, namespace: str
) -> None:
    make_pool(crd, namespace, "busy", FINALIZER)
    make_pool(crd, namespace, "free")
    deletion = asyncio.create_task(delete_pools(client, namespaces=[namespace], timeout=60))
    told = ("--for=jsonpath={.metadata.deletionTimestamp}", "--timeout=30s")
    await asyncio.to_thread(crd.kubectl, "wait", "agentpool/busy", f"-n={namespace}", *told)
    assert not deletion.done()
    unhold(crd, namespace, "busy")
    await deletion
    assert pools(crd, namespace) == {}


async def test_pools_that_do_not_end_in_time_lose_our_finalizer_alone(
    crd: Cluster, client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pool(crd, namespace, "stuck", FINALIZER)
    make_pool(crd, namespace, "held", FINALIZER, OTHERS)
    monkeypatch.setattr(uninstall, "TELL", 0.0)
    with capture_logs() as logs:
        await delete_pools(client, namespaces=[namespace], timeout=0)
    assert {line["left"] for line in logs if line["event"] == "waiting for AgentPools to end"} == {2}
    assert pools(crd, namespace) == {"held": [OTHERS]}
    unhold(crd, namespace, "held")


async def test_a_pool_that_comes_back_is_deleted_again(crd: Cluster, client: Client, namespace: str) -> None:
    make_pool(crd, namespace, "again")
    left = iter([1])

    def apply_once_more() -> None:
        if next(left, None):
            make_pool(crd, namespace, "again")

    meddled = cast(Client, Meddler(client, after=apply_once_more))
    await delete_pools(meddled, namespaces=[namespace], timeout=60)
    assert pools(crd, namespace) == {}


async def test_pools_that_stay_are_released_and_otherwise_left_alone(
    crd: Cluster, client: Client, namespace: str
) -> None:
    make_pool(crd, namespace, "kept", OTHERS, FINALIZER)
    elsewhere = crd.namespace()
    make_pool(crd, elsewhere, "unserved", FINALIZER)
    before = crd.get("agentpool", "kept", f"-n={namespace}")
    await release_pools(client, namespaces=[namespace])
    after = crd.get("agentpool", "kept", f"-n={namespace}")
    assert after["metadata"]["finalizers"] == [OTHERS]
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
    assert "deletionTimestamp" not in after["metadata"]
    assert pools(crd, elsewhere) == {"unserved": [FINALIZER]}
    for place, name in ((namespace, "kept"), (elsewhere, "unserved")):
        unhold(crd, place, name)


async def test_what_others_write_meanwhile_is_kept(crd: Cluster, client: Client, namespace: str) -> None:
    make_pool(crd, namespace, "shared", FINALIZER)
    left = iter([1])

    def add_finalizer() -> None:
        if next(left, None):
            unhold(crd, namespace, "shared", FINALIZER, OTHERS)

    await release_pools(cast(Client, Meddler(client, before=add_finalizer)), namespaces=[namespace])
    assert pools(crd, namespace) == {"shared": [OTHERS]}
    unhold(crd, namespace, "shared")


async def test_a_controller_that_still_runs_is_not_fought_for_ever(
    crd: Cluster, client: Client, namespace: str
) -> None:
    make_pool(crd, namespace, "contested", FINALIZER)
    meddled = Meddler(client, after=lambda: unhold(crd, namespace, "contested", FINALIZER))
    with pytest.raises(ApiError, match=FINALIZER):
        await release_pools(cast(Client, meddled), namespaces=[namespace])
    unhold(crd, namespace, "contested")


async def test_there_is_nothing_to_do_without_a_crd(
    client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "agentpools", lambda _: "/apis/velda.io/v9/agentpools")
    await delete_pools(client, namespaces=[], timeout=60)
    await release_pools(client, namespaces=[])


async def test_what_pools_own_does_not_wait_for_the_garbage_collector(
    crd: Cluster, client: Client, namespace: str
) -> None:
    make_pool(crd, namespace, "owner")
    uid = crd.get("agentpool", "owner", f"-n={namespace}")["metadata"]["uid"]
    owner = {"apiVersion": "velda.io/v1", "kind": "AgentPool", "name": "owner", "uid": uid, "controller": True}
    for kind, name, owners in (("pod", "worker", [owner]), ("pod", "users", []), ("revision", "template", [owner])):
        metadata = {"name": name, "labels": {POOL_LABEL: "owner"}, "ownerReferences": owners}
        manifests: dict[str, dict[str, Any]] = {
            "pod": {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "agent", "image": "a"}]}},
            "revision": {"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": {}},
        }
        manifest = json.dumps(manifests[kind] | {"metadata": metadata})
        crd.kubectl("create", f"-n={namespace}", "--filename=-", input=manifest)
    await delete_dependents(client, namespaces=[namespace])
    crd.kubectl("wait", "pod/worker", f"-n={namespace}", "--for=delete", "--timeout=60s")
    left = crd.kubectl("get", "pods,controllerrevisions", f"-n={namespace}", "--output=name").stdout.split()
    assert left == ["pod/users"]


async def test_config_maps_go_only_where_we_made_them(crd: Cluster, client: Client, namespace: str) -> None:
    elsewhere = crd.namespace()
    for place, name in ((namespace, "ours"), (namespace, "kept"), (elsewhere, "ours")):
        crd.kubectl("create", "configmap", name, f"-n={place}")
        crd.kubectl("label", "configmap", name, f"-n={place}", f"{MANAGED_BY_LABEL}={MANAGER}")
    crd.kubectl("create", "configmap", "users", f"-n={namespace}")
    for name in ("ours", "users"):
        await delete_config_maps(client, namespaces=[namespace], name=name)
    assert _config_maps(crd, namespace) == {"kept", "users"}
    assert _config_maps(crd, elsewhere) == {"ours"}


def _config_maps(crd: Cluster, namespace: str) -> set[str]:
    names = {item["metadata"]["name"] for item in crd.get("configmaps", f"-n={namespace}")["items"]}
    return names - {"kube-root-ca.crt"}


def test_the_command_does_it_by_the_kubeconfig(crd: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(crd.kubeconfig))
    make_pool(crd, namespace, "a", FINALIZER)
    assert run(pools="release", namespaces=[namespace], config_map="", timeout=1) == 0
    assert pools(crd, namespace) == {"a": []}
    crd.kubectl("create", "configmap", "ours", f"-n={namespace}")
    crd.kubectl("label", "configmap", "ours", f"-n={namespace}", f"{MANAGED_BY_LABEL}={MANAGER}")
    assert run(pools="delete", namespaces=[namespace], config_map="ours", timeout=30) == 0
    assert pools(crd, namespace) == {}
    assert _config_maps(crd, namespace) == set()


def test_a_failure_is_the_exit_code(crd: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(crd.kubeconfig))

    async def refuse(*_: object, **__: object) -> None:
        raise ApiError(403, "Forbidden", "no")

    monkeypatch.setattr(uninstall, "release_pools", refuse)
    assert run(pools="release", namespaces=[namespace], config_map="", timeout=1) == 1
