"""The client on the real API server: what its answers look like, and with which credentials it takes us."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml

from app.kube import paths
from app.kube.client import METADATA, Client
from app.kube.config import connect
from app.kube.endpoint import ServiceAccount
from app.kube.errors import ApiError, ApiUnreachable
from app.model.meta import NamespacedName
from app.settings import Kubernetes
from tests.support.cluster import Cluster


class Bench:
    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.path = paths.config_map(NamespacedName(namespace, "thing"))

    def config_map(self, **data: str) -> dict[str, Any]:
        meta = {"name": "thing", "namespace": self.namespace}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}

    async def create(self) -> dict[str, Any]:
        created: dict[str, Any] = msgspec.json.decode(
            await self.client.create(paths.config_maps(self.namespace), self.config_map(a="1"))
        )
        return created

    async def data(self) -> dict[str, str]:
        data: dict[str, str] = msgspec.json.decode(await self.client.get(self.path))["data"]
        return data


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    async with cluster.client() as client:
        yield Bench(client, cluster.namespace())


async def test_what_is_created_is_answered_by_its_metadata_and_a_refusal_as_ever(bench: Bench) -> None:
    answer = await bench.client.create(paths.config_maps(bench.namespace), bench.config_map(a="1"), accept=METADATA)
    created = msgspec.json.decode(answer)
    with pytest.raises(ApiError) as taken:
        await bench.client.create(paths.config_maps(bench.namespace), bench.config_map(a="1"), accept=METADATA)
    assert (created["metadata"]["name"], "data" in created) == ("thing", False)
    assert taken.value.already_exists
    assert taken.value.message == 'configmaps "thing" already exists'


async def test_a_name_that_is_taken_and_a_name_that_is_not(bench: Bench) -> None:
    with pytest.raises(ApiError) as missing:
        await bench.data()
    await bench.create()
    with pytest.raises(ApiError) as taken:
        await bench.create()
    assert missing.value.not_found
    assert taken.value.already_exists
    assert not taken.value.conflict


async def test_a_replacement_of_an_old_version_is_a_conflict(bench: Bench) -> None:
    first = await bench.create()
    await bench.client.replace(bench.path, first | {"data": {"a": "2"}})
    with pytest.raises(ApiError) as raised:
        await bench.client.replace(bench.path, first | {"data": {"a": "3"}})
    assert raised.value.conflict
    assert await bench.data() == {"a": "2"}


async def test_patches(bench: Bench) -> None:
    await bench.create()
    await bench.client.merge_patch(bench.path, {"data": {"a": None, "b": "2"}})
    await bench.client.json_patch(bench.path, [{"op": "add", "path": "/data/c", "value": "3"}])
    assert await bench.data() == {"b": "2", "c": "3"}


async def test_server_side_apply_keeps_to_its_own_fields(bench: Bench) -> None:
    await bench.client.apply(bench.path, bench.config_map(a="1", b="1"))
    await bench.client.apply(bench.path, bench.config_map(c="1"), manager="another")
    await bench.client.apply(bench.path, bench.config_map(a="2"))
    assert await bench.data() == {"a": "2", "c": "1"}
    with pytest.raises(ApiError, match="conflict") as raised:
        await bench.client.apply(bench.path, bench.config_map(a="3"), manager="another", force=False)
    assert raised.value.conflict
    assert raised.value.causes[0].field == ".data.a"
    await bench.client.apply(bench.path, bench.config_map(a="3"), manager="another")
    assert (await bench.data())["a"] == "3"


async def test_only_that_very_object_is_deleted(bench: Bench) -> None:
    meta = (await bench.create())["metadata"]
    for precondition in ({"uid": "another"}, {"resource_version": "1"}):
        with pytest.raises(ApiError) as raised:
            await bench.client.delete(bench.path, **precondition)  # type: ignore[arg-type]
        assert raised.value.conflict
    await bench.client.delete(bench.path, uid=meta["uid"], resource_version=meta["resourceVersion"])
    with pytest.raises(ApiError):
        await bench.data()


async def test_a_refusal_names_the_fields(bench: Bench) -> None:
    container = {"name": "agent", "image": " bad image", "resources": {"limits": {"cpu": "-1"}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    with pytest.raises(ApiError) as raised:
        await bench.client.create(paths.pods(bench.namespace), pod, params={"dryRun": "All"})
    assert (raised.value.status, raised.value.reason) == (422, "Invalid")
    assert {(cause.field, cause.reason) for cause in raised.value.causes} >= {
        ("spec.containers[0].image", "FieldValueInvalid"),
        ("spec.containers[0].resources.limits[cpu]", "FieldValueInvalid"),
    }


async def test_the_current_kubectl_context_outside_a_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    async with await connect(Kubernetes(namespace="velda")) as client:
        assert b"gitVersion" in await client.get("/version")


@pytest.fixture
def service_account(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As kubelet mounts it, with the account `default` of a new namespace."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    address = urlsplit(config["server"])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
    token = cluster.kubectl("create", "token", "default", f"--namespace={cluster.namespace()}").stdout
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(config["certificate-authority-data"]))
    (tmp_path / "token").write_text(token)
    return tmp_path


async def test_the_service_account_in_a_cluster(service_account: Path) -> None:
    source = ServiceAccount(service_account)
    (service_account / "good").write_text((service_account / "token").read_text())
    (service_account / "token").write_text("expired")
    async with Client(source, await source()) as client:
        with pytest.raises(ApiError) as refused:
            await client.get(paths.pods("default"))
        (service_account / "token").write_text((service_account / "good").read_text())
        with pytest.raises(ApiError) as forbidden:
            await client.get(paths.pods("default"))
    assert refused.value.status == 401
    assert forbidden.value.status == 403
    assert "system:serviceaccount:" in forbidden.value.message


async def test_a_server_with_the_certificate_of_another_authority_is_not_trusted(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    async with await connect(Kubernetes(namespace="velda")) as client:
        with pytest.raises(ApiUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get("/version")
