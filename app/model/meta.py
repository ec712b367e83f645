"""Object metadata and the names that mark what is ours."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

GROUP = "velda.io"
VERSION = "v1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AgentPool"
PLURAL = "agentpools"

POOL_LABEL = "velda.io/pool"
"""On every worker pod: the name of its AgentPool. Pods are watched by this label alone."""
TEMPLATE_HASH_LABEL = "velda.io/template-hash"
"""On every worker pod: which version of the template it was made from."""
CONFIG_MAP_ANNOTATION = "velda.io/config-map"
"""On an AgentPool, or on a pod made by hand: the ConfigMap to mount at /run/velda in place of the default."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
"""On worker pods: what other controllers of the cluster read before they take one away."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "velda-apiserver"
"""Our field manager, and the value of the managed-by label on what we create and keep."""
FINALIZER = "velda.io/agents"
"""Holds an AgentPool until its sessions were told to end and its pods are gone."""


class NamespacedName(NamedTuple):
    """Key of a namespaced object; prints as kubectl writes it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class OwnerReference(msgspec.Struct, frozen=True, rename="camel", gc=False):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel", gc=False):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int = 0

    @property
    def key(self) -> NamespacedName:
        return NamespacedName(self.namespace, self.name)

    def label(self, name: str) -> str:
        """The label's value, empty when it is not set."""
        return (self.labels or {}).get(name, "")

    def annotation(self, name: str) -> str:
        """The annotation's value, empty when it is not set."""
        return (self.annotations or {}).get(name, "")

    def controller_uid(self) -> str:
        """The uid of the owner that controls this object, empty when there is none."""
        for owner in self.owner_references:
            if owner.controller:
                return owner.uid
        return ""


class OnlyMetadata(msgspec.Struct, frozen=True):
    """Any object, of which nothing else is read."""

    metadata: ObjectMeta
