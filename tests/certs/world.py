"""A release's Secret, webhook configurations and pods on a real API server, as the chart renders them."""

from __future__ import annotations

import base64
import contextlib
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import MANAGER, NamespacedName
from app.settings import Webhook
from certs.manager import CertificateManager
from certs.material import Material
from certs.replicas import SECRET_LABEL, SERVED_ANNOTATION
from certs.store import ISSUED_BY_ANNOTATION


class Replica:
    """One server process' certificates, in the pod ``name``."""

    def __init__(self, bench: Bench, name: str, *, leading: bool) -> None:
        self.name = name
        self.leading = leading
        self.now = datetime.now(UTC)
        self.manager = CertificateManager(
            bench.client,
            namespace=bench.secret.namespace,
            settings=bench.settings,
            pod=name,
            leading=lambda: self.leading,
            clock=lambda: self.now,
        )


class Bench:
    """``name`` is what the API server calls the webhooks by."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.secret = NamespacedName(namespace, "velda-apiserver-tls")
        self.authority = NamespacedName(namespace, "velda-apiserver-ca")
        self.name = f"velda-apiserver-webhook.{namespace}.svc"
        self.settings = Webhook(
            service="velda-apiserver-webhook",
            validating_configuration=namespace,
            mutating_configuration=namespace,
            ca_overlap_seconds=0,
        )
        self.configurations = (paths.validating_webhook(namespace), paths.mutating_webhook(namespace))

    async def replica(self, *, leading: bool = True) -> Replica:
        name = f"replica-{uuid.uuid4().hex[:8]}"
        await self.create_pod(name)
        return Replica(self, name, leading=leading)

    async def create_pod(self, name: str, *, labels: dict[str, str] | None = None) -> None:
        """It never finds a node, and so stays as it is made."""
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {"containers": [{"name": "server", "image": "none"}], "nodeSelector": {"none": "none"}},
        }
        await self.client.create(paths.pods(self.secret.namespace), manifest)

    async def create_other_replica(self, served: str) -> str:
        """The pod of one that serves that certificate (its fingerprint), and is no process of ours."""
        name = f"other-{uuid.uuid4().hex[:8]}"
        await self.create_pod(name, labels={SECRET_LABEL: self.secret.name})
        await self.tell(name, served)
        return name

    async def tell(self, pod: str, served: str) -> None:
        body = {"metadata": {"annotations": {SERVED_ANNOTATION: served}}}
        await self.client.merge_patch(paths.pod(NamespacedName(self.secret.namespace, pod)), body)

    async def create_secret(self, *, annotations: dict[str, str] | None = None, **data: bytes) -> None:
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self.secret.name,
                "namespace": self.secret.namespace,
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": annotations or {},
            },
            "type": "Opaque",
            "data": _encoded(data),
        }
        await self.client.create(paths.secrets(self.secret.namespace), manifest)

    async def create_ours(self, material: Material) -> None:
        """As if a replica had written it."""
        await self.create_secret(
            annotations={ISSUED_BY_ANNOTATION: MANAGER},
            tls_crt=material.leaf.certificate,
            tls_key=material.leaf.key,
            ca_crt=material.bundle,
            ca_key=material.authority.key,
        )

    async def create_configurations(self) -> None:
        for kind, path in zip(("Validating", "Mutating"), self.configurations, strict=True):
            manifest = {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": f"{kind}WebhookConfiguration",
                "metadata": {"name": self.secret.namespace},
                "webhooks": [self._webhook(f"{entry}.velda.io") for entry in ("one", "two")],
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

    async def annotate(self, **annotations: str) -> None:
        named = {f"velda.io/{key}": value for key, value in annotations.items()}
        await self.client.merge_patch(paths.secret(self.secret), {"metadata": {"annotations": named}})

    async def published(self) -> list[bytes]:
        """The caBundle of every webhook, all configurations together."""
        found = [msgspec.json.decode(await self.client.get(path)) for path in self.configurations]
        return [
            base64.b64decode(webhook["clientConfig"].get("caBundle", ""))
            for configuration in found
            for webhook in configuration["webhooks"]
        ]

    async def wipe(self) -> None:
        """Somebody takes one caBundle away."""
        operation = {"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}
        await self.client.json_patch(self.configurations[0], [operation])

    async def inject(self, bundle: bytes) -> None:
        """As cert-manager's cainjector does."""
        for path in self.configurations:
            value = base64.b64encode(bundle).decode()
            operations = [{"op": "add", "path": f"/webhooks/{n}/clientConfig/caBundle", "value": value} for n in (0, 1)]
            await self.client.json_patch(path, operations)

    def _webhook(self, name: str) -> dict[str, Any]:
        """It matches nothing, so that it can never be in another test's way."""
        rule = {"apiGroups": ["none.velda.io"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["nones"]}
        return {
            "name": name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"service": {"name": self.settings.service, "namespace": self.secret.namespace}},
            "rules": [rule],
        }


def _encoded(data: dict[str, bytes]) -> dict[str, str]:
    return {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}
