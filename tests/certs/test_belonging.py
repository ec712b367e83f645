"""Who deletes the release's namespace takes the webhook configurations with it: on a real garbage collector."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import structlog

from app.kube import paths
from app.kube.errors import ApiError
from certs import belonging as module
from certs.belonging import HELM_NAMESPACE
from tests.certs.world import Bench
from tests.support.cluster import Cluster

OTHER = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": "view", "uid": ""}


async def installed(bench: Bench, *, namespace: str = "") -> None:
    """As helm marks what it installs."""
    for path in bench.configurations:
        annotations = {HELM_NAMESPACE: namespace or bench.secret.namespace}
        await bench.client.merge_patch(path, {"metadata": {"annotations": annotations}})


async def owners(bench: Bench) -> list[list[dict[str, Any]]]:
    found = [msgspec.json.decode(await bench.client.get(path))["metadata"] for path in bench.configurations]
    return [meta.get("ownerReferences", []) for meta in found]


async def test_what_helm_installed_goes_with_the_namespace(bench: Bench, cluster: Cluster) -> None:
    await installed(bench)
    replica = await bench.replica()
    await replica.manager.ensure()
    uid = cluster.get("namespace", bench.secret.namespace)["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": bench.secret.namespace, "uid": uid}
    assert await owners(bench) == [[owner], [owner]]
    cluster.kubectl("delete", "namespace", bench.secret.namespace, "--wait=false")
    for kind in ("validating", "mutating"):
        configuration = f"{kind}webhookconfiguration/{bench.secret.namespace}"
        cluster.kubectl("wait", configuration, "--for=delete", "--timeout=60s")


@pytest.mark.parametrize("namespace", ["nobody", "another"])
async def test_what_others_installed_has_no_owner(bench: Bench, namespace: str) -> None:
    """Argo CD would leave it to the garbage collector when it deletes an application and not the namespace."""
    if namespace == "another":
        await installed(bench, namespace=namespace)
    await (await bench.replica()).manager.ensure()
    assert await owners(bench) == [[], []]


async def test_other_owners_stay_and_nothing_is_written_twice(bench: Bench, cluster: Cluster) -> None:
    await installed(bench)
    other = {**OTHER, "uid": cluster.get("clusterrole", "view")["metadata"]["uid"]}
    for path in bench.configurations:
        await bench.client.merge_patch(path, {"metadata": {"ownerReferences": [other]}})
    replica = await bench.replica()
    await replica.manager.ensure()
    versions = [msgspec.json.decode(await bench.client.get(path))["metadata"] for path in bench.configurations]
    await replica.manager.ensure()
    assert [msgspec.json.decode(await bench.client.get(path))["metadata"] for path in bench.configurations] == versions
    assert [[owner["kind"] for owner in each] for each in await owners(bench)] == [["ClusterRole", "Namespace"]] * 2


async def test_an_owner_that_may_not_be_set_is_told_and_webhooks_are_served(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await installed(bench)
    replica = await bench.replica()
    get = bench.client.get

    async def refuse(path: str, **more: Any) -> bytes:
        if path == paths.namespace(bench.secret.namespace):
            raise ApiError(403, "Forbidden", "no")
        return await get(path, **more)

    monkeypatch.setattr(bench.client, "get", refuse)
    monkeypatch.setattr(module, "log", structlog.get_logger())
    with structlog.testing.capture_logs() as told:
        await replica.manager.ensure()
    assert replica.manager.ready
    assert "webhook configurations would outlive the namespace" in [line["event"] for line in told]
    assert await owners(bench) == [[], []]
