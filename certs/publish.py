"""Writes our CA bundle to where others look for it, by server-side apply: helm and GitOps tools see no drift.

Of webhook configurations only ``caBundle`` of each entry is ours; all else stays with whoever installed them. A bundle
is written only into the version that was read, and the Secret must have been read after that: so nobody, however late,
takes away a CA that another has published since.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from app.core.proofs import CA_KEY
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import NamespacedName


class Hook(NamedTuple):
    """One webhook as the API server calls it: the host that the certificate must name, the CAs that it trusts."""

    host: str
    bundle: bytes


class Configuration:
    """One version of a webhook configuration."""

    def __init__(self, path: str, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.hooks = [_hook(webhook.get("clientConfig") or {}) for webhook in manifest.get("webhooks") or []]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


async def read(client: Client, path: str) -> Configuration:
    """Raises ApiError, also when there is none."""
    return Configuration(path, msgspec.json.decode(await client.get(path)))


async def publish(client: Client, configuration: Configuration, *, bundle: bytes) -> bool:
    """Make every webhook of that version carry ``bundle``; False if it has changed since. Raises ApiError.

    What the API server then shows is for the caller to read back.
    """
    try:
        await client.apply(configuration.path, _patch(configuration.manifest, base64.b64encode(bundle).decode()))
    except ApiError as error:
        if not error.conflict:
            raise
        return False
    return True


async def publish_authority(client: Client, *, key: NamespacedName, bundle: bytes) -> bool:
    """Make the ConfigMap, which every user may read, carry ``bundle``; True if it had to be written. ApiError."""
    wanted = {CA_KEY: bundle.decode(errors="replace")}
    if await _data(client, key) == wanted:
        return False
    metadata = {"name": key.name, "namespace": key.namespace}
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": wanted}
    await client.apply(paths.config_map(key), manifest)
    return True


async def _data(client: Client, key: NamespacedName) -> object:
    try:
        return msgspec.json.decode(await client.get(paths.config_map(key))).get("data")
    except ApiError as error:
        if not error.not_found:
            raise
        return None


def _patch(manifest: dict[str, Any], wanted: str) -> dict[str, Any]:
    metadata = manifest["metadata"]
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        # The uid keeps an apply from creating it anew where it was deleted in between.
        "metadata": {key: metadata[key] for key in ("name", "uid", "resourceVersion")},
        "webhooks": [
            {"name": webhook["name"], "clientConfig": {"caBundle": wanted}} for webhook in manifest["webhooks"]
        ],
    }


def _hook(client_config: dict[str, Any]) -> Hook:
    service = client_config.get("service") or {}
    by_service = f"{service.get('name')}.{service.get('namespace')}.svc"
    host = by_service if service else urlsplit(client_config.get("url") or "").hostname or ""
    try:
        return Hook(host, base64.b64decode(client_config.get("caBundle") or ""))
    except binascii.Error:
        return Hook(host, b"")
