"""The Secret that replicas share: whoever writes first has decided, the others read what it wrote."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import MANAGED_BY_LABEL, MANAGER, NamespacedName
from certs.authority import KeyPair
from certs.rotation import Material

ISSUED_BY_ANNOTATION = "velda.io/certificate-issued-by"
"""Marks the Secret's content as ours. Content without the mark is the user's and is never touched."""


class StoredSecret:
    """One version of the Secret, or its absence (``manifest`` None)."""

    def __init__(self, manifest: dict[str, Any] | None) -> None:
        self.manifest = manifest
        self.material = _material(manifest or {})
        annotations = ((manifest or {}).get("metadata") or {}).get("annotations") or {}
        self.marked = annotations.get(ISSUED_BY_ANNOTATION) == MANAGER

    @property
    def empty(self) -> bool:
        """Nothing to serve with: missing, or as the chart renders it."""
        return not self.material.leaf.certificate

    @property
    def users(self) -> bool:
        return not self.marked and not self.empty


class SecretStore:
    """Reads and writes the Secret ``key``."""

    def __init__(self, client: Client, key: NamespacedName) -> None:
        self._client = client
        self.key = key

    async def read(self) -> StoredSecret:
        try:
            return StoredSecret(msgspec.json.decode(await self._client.get(paths.secret(self.key))))
        except ApiError as error:
            if not error.not_found:
                raise
            return StoredSecret(None)

    async def write(self, old: StoredSecret, material: Material) -> bool:
        """Put ``material`` into the version that was read; False if another writer was faster."""
        manifest = _filled(old.manifest or self._new(), material)
        try:
            if old.manifest is None:
                await self._client.create(paths.secrets(self.key.namespace), manifest)
            else:
                await self._client.replace(paths.secret(self.key), manifest)
        except ApiError as error:
            if error.conflict or error.already_exists or (error.not_found and old.manifest is not None):
                return False
            raise
        return True

    def _new(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "namespace": self.key.namespace,
                "name": self.key.name,
                "labels": {MANAGED_BY_LABEL: MANAGER},
            },
            "type": "Opaque",
        }


def _material(manifest: dict[str, Any]) -> Material:
    data = manifest.get("data") or {}
    leaf = KeyPair(certificate=_decode(data.get("tls.crt")), key=_decode(data.get("tls.key")))
    bundle = _decode(data.get("ca.crt"))
    return Material(leaf=leaf, bundle=bundle, authority=KeyPair(certificate=bundle, key=_decode(data.get("ca.key"))))


def _filled(manifest: dict[str, Any], material: Material) -> dict[str, Any]:
    """The manifest with our mark and content; its resourceVersion, if it has one, is the precondition of a replace."""
    metadata = manifest["metadata"]
    content = {
        "tls.crt": material.leaf.certificate,
        "tls.key": material.leaf.key,
        "ca.crt": material.bundle,
        "ca.key": material.authority.key,
    }
    return {
        **manifest,
        "metadata": {
            **metadata,
            "annotations": {**(metadata.get("annotations") or {}), ISSUED_BY_ANNOTATION: MANAGER},
        },
        "data": {
            **(manifest.get("data") or {}),
            **{key: base64.b64encode(value).decode() for key, value in content.items()},
        },
    }


def _decode(value: object) -> bytes:
    try:
        return base64.b64decode(value) if isinstance(value, str) else b""
    except binascii.Error:
        return b""
