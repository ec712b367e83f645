"""Writes our CA bundle into the webhook configurations, by server-side apply: helm and GitOps tools see no drift.

Only ``caBundle`` of each entry is ours; everything else stays with whoever installed the configuration.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from app.kube.client import Client

TRIES = 3


class NotPublishedError(Exception):
    """Somebody else keeps writing another bundle."""


async def publish(client: Client, *, path: str, bundle: bytes) -> bool:
    """Make every webhook of the configuration at ``path`` carry ``bundle``; True if it had to be written.

    It is read back: only what the API server then shows counts. Raises ApiError, and NotPublishedError.
    """
    wanted = base64.b64encode(bundle).decode()
    for attempt in range(TRIES):
        configuration = msgspec.json.decode(await client.get(path))
        webhooks = configuration.get("webhooks") or []
        if all((webhook.get("clientConfig") or {}).get("caBundle") == wanted for webhook in webhooks):
            return attempt > 0
        await client.apply(path, _patch(configuration, wanted))
    raise NotPublishedError(f"{path}: the caBundle was overwritten {TRIES} times in a row")


def _patch(configuration: dict[str, Any], wanted: str) -> dict[str, Any]:
    metadata = configuration["metadata"]
    return {
        "apiVersion": configuration["apiVersion"],
        "kind": configuration["kind"],
        # The uid keeps an apply from creating it anew where it was deleted in between.
        "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
        "webhooks": [
            {"name": webhook["name"], "clientConfig": {"caBundle": wanted}} for webhook in configuration["webhooks"]
        ],
    }
