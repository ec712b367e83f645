"""Webhook configurations go with the release's namespace: who deletes that alone leaves none that refuses for ever.

The Namespace becomes their owner, and the garbage collector does the rest, also when no replica is alive. Only what
helm has installed is given one: helm removes it all the same, while Argo CD, when it deletes an application, leaves
what has an owner to the garbage collector, and the namespace may stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import OnlyMetadata
from certs.publish import Configuration

HELM_NAMESPACE = "meta.helm.sh/release-namespace"
"""Helm's annotation on what it installs: the namespace of the release."""

log = structlog.get_logger()


class Belonging:
    """``namespace`` is the release's; None outside of a cluster, where no configuration is given an owner."""

    def __init__(self, client: Client, *, namespace: str | None) -> None:
        self._client = client
        self._namespace = namespace
        self._owner: dict[str, Any] = {}

    async def ensure(self, configurations: Sequence[Configuration]) -> bool:
        """Give those an owner that lack it; True if one was written or has changed since. What fails is told only."""
        wrong = [found for found in configurations if self._ours(found) and not self._owned(found)]
        try:
            if wrong and not self._owner:
                self._owner = await self._read()
            for configuration in wrong:
                if not self._owned(configuration):
                    await self._own(configuration)
                    return True
        except ApiError as error:
            log.warning("webhook configurations would outlive the namespace", error=str(error))
        return False

    def _ours(self, configuration: Configuration) -> bool:
        annotations = configuration.manifest["metadata"].get("annotations") or {}
        return self._namespace is not None and annotations.get(HELM_NAMESPACE) == self._namespace

    def _owned(self, configuration: Configuration) -> bool:
        return self._owner in _owners(configuration)

    async def _read(self) -> dict[str, Any]:
        body = await self._client.get(paths.namespace(self._namespace or ""))
        meta = msgspec.json.decode(body, type=OnlyMetadata).metadata
        return {"apiVersion": "v1", "kind": "Namespace", "name": meta.name, "uid": meta.uid}

    async def _own(self, configuration: Configuration) -> None:
        version = configuration.manifest["metadata"]["resourceVersion"]
        owners = [*_owners(configuration), self._owner]
        try:
            body = {"metadata": {"resourceVersion": version, "ownerReferences": owners}}
            await self._client.merge_patch(configuration.path, body)
        except ApiError as error:
            if not error.conflict:
                raise
        else:
            log.info("webhook configuration goes with the namespace", configuration=configuration.name)


def _owners(configuration: Configuration) -> list[dict[str, Any]]:
    owners: list[dict[str, Any]] = configuration.manifest["metadata"].get("ownerReferences") or []
    return owners
