"""The Secret that replicas share: whoever writes first has decided, the others read what it wrote."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import MANAGED_BY_LABEL, MANAGER, NamespacedName
from certs.authority import KeyPair
from certs.material import Material, blocks

ISSUED_BY_ANNOTATION = "velda.io/certificate-issued-by"
"""Marks the Secret's content as ours. Content without the mark is the user's and is never touched."""
CERT_MANAGER_ANNOTATION = "cert-manager.io/certificate-name"
"""What cert-manager marks a Secret with: it is not ours, even if it once was."""
ROTATE_ANNOTATION = "velda.io/rotate"
"""A user's wish for a new ``leaf`` or ``ca``; it goes with the write that fulfils it."""


class StoredSecret:
    """One version of the Secret, or its absence (``manifest`` None)."""

    def __init__(self, manifest: dict[str, Any] | None) -> None:
        self.manifest = manifest
        self.material = _material(manifest or {})
        self._annotations = ((manifest or {}).get("metadata") or {}).get("annotations") or {}

    @property
    def empty(self) -> bool:
        """Nothing to serve with: missing, or as the chart renders it."""
        return not self.material.leaf.certificate

    @property
    def users(self) -> bool:
        marked = self._annotations.get(ISSUED_BY_ANNOTATION) == MANAGER
        return not self.empty and (not marked or CERT_MANAGER_ANNOTATION in self._annotations)

    @property
    def requested(self) -> str:
        """What the user wants anew, as it was written."""
        return str(self._annotations.get(ROTATE_ANNOTATION) or "")


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

    async def write(self, old: StoredSecret, material: Material, *, done: Collection[str]) -> datetime | None:
        """Put ``material`` into the version that was read, and take the request away if it is among those ``done``.

        When it was written, by the API server's clock; None if another writer was faster.
        """
        manifest = _filled(old.manifest or self._new(), material)
        if old.requested in done:
            manifest["metadata"]["annotations"].pop(ROTATE_ANNOTATION, None)
        try:
            if old.manifest is None:
                written = await self._client.create(paths.secrets(self.key.namespace), manifest)
            else:
                written = await self._client.replace(paths.secret(self.key), manifest)
        except ApiError as error:
            if error.conflict or error.already_exists or (error.not_found and old.manifest is not None):
                return None
            raise
        return max(entry.time for entry in msgspec.json.decode(written, type=_Written).metadata.managed_fields)

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


class _ManagedFields(msgspec.Struct, frozen=True):
    time: datetime


class _WrittenMeta(msgspec.Struct, frozen=True, rename="camel"):
    managed_fields: tuple[_ManagedFields, ...]


class _Written(msgspec.Struct, frozen=True):
    metadata: _WrittenMeta


def _material(manifest: dict[str, Any]) -> Material:
    data = manifest.get("data") or {}
    leaf = KeyPair(certificate=_decode(data.get("tls.crt")), key=_decode(data.get("tls.key")))
    bundle = _decode(data.get("ca.crt"))
    first = next(iter(blocks(bundle)), b"")
    return Material(leaf=leaf, bundle=bundle, authority=KeyPair(certificate=first, key=_decode(data.get("ca.key"))))


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
