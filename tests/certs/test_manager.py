"""Secret, caBundle and TLS context together, on a real API server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import structlog

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import NamespacedName
from app.settings import Webhook
from certs import manager as module
from certs.authority import issue_authority, issue_leaf
from certs.manager import CertificateError, CertificateManager
from certs.publish import publish
from certs.store import ISSUED_BY_ANNOTATION
from tests.certs.handshake import presented
from tests.support.cluster import Cluster

TIMEOUT = 20.0


class Replica:
    """One server process' certificates."""

    def __init__(self, bench: Bench) -> None:
        self.now = datetime.now(UTC)
        self.manager = CertificateManager(
            bench.client,
            namespace=bench.secret.namespace,
            settings=bench.settings,
            in_cluster=True,
            clock=lambda: self.now,
        )


class Bench:
    """A release's Secret and webhook configurations, as the chart renders them."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.secret = NamespacedName(namespace, "velda-apiserver-tls")
        self.name = f"velda-apiserver-webhook.{namespace}.svc"
        self.settings = Webhook(
            service="velda-apiserver-webhook",
            validating_configuration=namespace,
            mutating_configuration=namespace,
        )
        self.configurations = (paths.validating_webhook(namespace), paths.mutating_webhook(namespace))

    async def create_secret(self, **data: bytes) -> None:
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self.secret.name,
                "namespace": self.secret.namespace,
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
            },
            "type": "Opaque",
            "data": _encoded(data),
        }
        await self.client.create(paths.secrets(self.secret.namespace), manifest)

    async def create_configurations(self) -> None:
        for kind, path in zip(("Validating", "Mutating"), self.configurations, strict=True):
            manifest = {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": f"{kind}WebhookConfiguration",
                "metadata": {"name": self.secret.namespace},
                "webhooks": [_webhook(f"{entry}.velda.io") for entry in ("one", "two")],
            }
            await self.client.create(path.rpartition("/")[0], manifest)

    async def delete_configurations(self) -> None:
        for path in self.configurations:
            with contextlib.suppress(ApiError):
                await self.client.delete(path)

    async def stored(self) -> dict[str, Any]:
        manifest: dict[str, Any] = msgspec.json.decode(await self.client.get(paths.secret(self.secret)))
        return manifest

    async def content(self) -> dict[str, bytes]:
        return {key: base64.b64decode(value) for key, value in (await self.stored())["data"].items()}

    async def overwrite(self, **data: bytes) -> None:
        await self.client.merge_patch(paths.secret(self.secret), {"data": _encoded(data)})

    async def published(self) -> list[bytes]:
        """The caBundle of every webhook, all configurations together."""
        found = [msgspec.json.decode(await self.client.get(path)) for path in self.configurations]
        return [
            base64.b64decode(webhook["clientConfig"].get("caBundle", ""))
            for configuration in found
            for webhook in configuration["webhooks"]
        ]


def _encoded(data: dict[str, bytes]) -> dict[str, str]:
    return {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}


def _webhook(name: str) -> dict[str, Any]:
    """It matches nothing, so that it can never be in another test's way."""
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:1/validate"},
        "rules": [{"apiGroups": ["none.velda.io"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["nones"]}],
    }


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    async with cluster.client() as client:
        bench = Bench(client, cluster.namespace())
        await bench.create_configurations()
        yield bench
        await bench.delete_configurations()


async def test_the_charts_empty_secret_is_filled_served_and_published(bench: Bench) -> None:
    await bench.create_secret()
    replica = Replica(bench)
    assert replica.manager.problem
    await replica.manager.ensure()
    assert replica.manager.ready
    content = await bench.content()
    assert set(content) == {"tls.crt", "tls.key", "ca.crt", "ca.key"}
    assert await bench.published() == [content["ca.crt"]] * 4
    assert presented(replica.manager.context, bundle=content["ca.crt"], name=bench.name) == content["tls.crt"]
    assert (await bench.stored())["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "Helm"}


async def test_a_missing_secret_is_created(bench: Bench) -> None:
    await Replica(bench).manager.ensure()
    assert (await bench.stored())["metadata"]["annotations"] == {ISSUED_BY_ANNOTATION: "velda-apiserver"}


@pytest.mark.parametrize("exists", [True, False])
async def test_replicas_that_start_together_agree(bench: Bench, exists: bool) -> None:
    if exists:
        await bench.create_secret()
    replicas = [Replica(bench) for _ in range(5)]
    await asyncio.gather(*(bench.published() for _ in replicas))  # connections for all: none has a head start
    await asyncio.gather(*(replica.manager.ensure() for replica in replicas))
    content = await bench.content()
    for replica in replicas:
        assert presented(replica.manager.context, bundle=content["ca.crt"], name=bench.name) == content["tls.crt"]
    assert set(await bench.published()) == {content["ca.crt"]}


async def test_a_restart_changes_nothing(bench: Bench) -> None:
    await Replica(bench).manager.ensure()
    before = await bench.stored()
    await Replica(bench).manager.ensure()
    assert await bench.stored() == before


async def test_a_leaf_is_renewed_and_other_replicas_follow(bench: Bench) -> None:
    first, second = Replica(bench), Replica(bench)
    first.now -= timedelta(days=61)
    await first.manager.ensure()
    old = await bench.content()
    first.now = second.now
    await first.manager.ensure()
    await second.manager.ensure()
    new = await bench.content()
    assert new["ca.crt"] == old["ca.crt"]
    assert new["tls.crt"] != old["tls.crt"]
    for replica in (first, second):
        assert presented(replica.manager.context, bundle=old["ca.crt"], name=bench.name) == new["tls.crt"]


@pytest.mark.parametrize(
    ("spoiled", "same_authority"), [({"tls_crt": b"x"}, True), ({"tls_key": b"x"}, True), ({"ca_key": b"x"}, False)]
)
async def test_a_corrupt_secret_is_issued_anew_and_said_so(
    bench: Bench, spoiled: dict[str, bytes], same_authority: bool
) -> None:
    replica = Replica(bench)
    await replica.manager.ensure()
    old = await bench.content()
    await bench.overwrite(**spoiled)
    with structlog.testing.capture_logs() as logs:
        await replica.manager.ensure()
    content = await bench.content()
    assert (content["ca.crt"] == old["ca.crt"]) is same_authority
    assert presented(replica.manager.context, bundle=content["ca.crt"], name=bench.name) == content["tls.crt"]
    assert set(await bench.published()) == {content["ca.crt"]}
    assert (logs[0]["log_level"], logs[0]["event"]) == ("warning", "certificates issued")
    assert next(iter(spoiled)).replace("_", ".") in logs[0]["reason"]
    assert "PRIVATE" not in str(logs)


async def test_a_users_secret_is_served_and_never_touched(bench: Bench) -> None:
    now = datetime.now(UTC)
    authority = issue_authority(now=now)
    leaf = issue_leaf(authority, names=[bench.name], now=now - timedelta(days=80))  # ours would be renewed
    await bench.create_secret(tls_crt=leaf.certificate, tls_key=leaf.key, ca_crt=authority.certificate)
    before = await bench.stored()
    replica = Replica(bench)
    await replica.manager.ensure()
    assert await bench.stored() == before
    assert set(await bench.published()) == {authority.certificate}
    assert presented(replica.manager.context, bundle=authority.certificate, name=bench.name) == leaf.certificate


async def test_a_users_secret_that_cannot_be_used_is_not_touched_either(bench: Bench) -> None:
    await bench.create_secret(tls_crt=b"mine", tls_key=b"mine")
    before = await bench.stored()
    replica = Replica(bench)
    with pytest.raises(CertificateError, match=r"not ours to mend.*not a PEM certificate"):
        await replica.manager.ensure()
    assert not replica.manager.ready
    assert await bench.stored() == before


async def test_a_users_secret_without_a_ca_is_no_caBundle(bench: Bench) -> None:  # noqa: N802
    now = datetime.now(UTC)
    leaf = issue_leaf(issue_authority(now=now), names=[bench.name], now=now)
    await bench.create_secret(tls_crt=leaf.certificate, tls_key=leaf.key)
    with pytest.raises(CertificateError, match=r"has no ca\.crt"):
        await Replica(bench).manager.ensure()


async def test_a_wiped_bundle_is_published_again(bench: Bench) -> None:
    replica = Replica(bench)
    await replica.manager.ensure()
    path = bench.configurations[0]
    await bench.client.json_patch(path, [{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}])
    assert b"" in await bench.published()
    await replica.manager.ensure()
    assert set(await bench.published()) == {(await bench.content())["ca.crt"]}


async def test_a_configuration_that_is_gone_is_not_created(bench: Bench) -> None:
    await bench.delete_configurations()
    with pytest.raises(ApiError) as error:
        await publish(bench.client, path=bench.configurations[0], bundle=b"")
    assert error.value.not_found


async def test_run_tries_until_all_is_in_place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST", 0.01)
    monkeypatch.setattr(module, "CHECK_INTERVAL", 0.01)
    await bench.delete_configurations()
    replica = Replica(bench)
    running = asyncio.create_task(replica.manager.run())
    await _until(lambda: "not found" in (replica.manager.problem or ""))
    await bench.create_configurations()
    await _until(lambda: replica.manager.ready)
    running.cancel()
    assert set(await bench.published()) == {(await bench.content())["ca.crt"]}


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not holds():  # noqa: ASYNC110  readiness is polled, as the kubelet does
            await asyncio.sleep(0.01)


async def test_a_client_that_trusts_another_bundle_is_not_fooled(bench: Bench) -> None:
    replica = Replica(bench)
    await replica.manager.ensure()
    with pytest.raises(ssl.SSLCertVerificationError):
        presented(replica.manager.context, bundle=issue_authority(now=replica.now).certificate, name=bench.name)
