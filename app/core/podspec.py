"""The worker pod of a pool, exactly as the controller creates it and as the webhook rehearses it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from app.core import hints
from app.core.injection import inject
from app.core.proofs import Proof
from app.model.agentpool import AgentPool, PoolSpec
from app.model.meta import API_VERSION, KIND, POOL_LABEL, TEMPLATE_HASH_LABEL

NAME_LENGTH = 63
"""A pod's name is its host name too, which DNS limits."""
TRACKING_PREFIXES = (
    "argocd.argoproj.io/tracking-id",
    "argocd.argoproj.io/installation-id",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "config.kubernetes.io/owning-inventory",
    "kubectl.kubernetes.io/last-applied-configuration",
)
"""Annotations by which tools find what they manage; a pod that carried one would be pruned."""


class Body(NamedTuple):
    """JSON before and after a pod's name: pods of one template differ in nothing else."""

    head: bytes
    tail: bytes

    def named(self, name: str) -> bytes:
        return b'%s"name":"%s"%s' % (self.head, name.encode(), self.tail)


def render(
    pool: AgentPool, spec: PoolSpec, *, name: str, config_map: str, proof: Proof | None = None
) -> dict[str, Any]:
    """The Pod to create: the template, what marks it as ours, and the injection. It shares parts with the template.

    It is idle and says so, as far as the template does not say otherwise. Nothing is copied from the AgentPool's own
    labels and annotations: they may be a GitOps tool's.
    """
    template = spec.template
    meta = template.get("metadata") or {}
    annotations = hints.values(0) | {
        key: value for key, value in (meta.get("annotations") or {}).items() if not key.startswith(TRACKING_PREFIXES)
    }
    metadata = {
        "name": name,
        "namespace": pool.metadata.namespace,
        "labels": {
            **(meta.get("labels") or {}),
            POOL_LABEL: pool.metadata.name,
            TEMPLATE_HASH_LABEL: spec.template_hash or template_hash(template),
        },
        "annotations": annotations,
        "ownerReferences": [owner_reference(pool)],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    return inject(pod, pool=pool.metadata.name, config_map=config_map, proof=proof)


def encode_pod(pool: AgentPool, spec: PoolSpec, *, config_map: str, proof: Proof | None = None) -> Body:
    """The JSON of a pod that has no name yet, rendered once for all that are created together."""
    # Its name comes first in a pod's metadata, and before any part of the template.
    pod = render(pool, spec, name="", config_map=config_map, proof=proof)
    return Body(*msgspec.json.encode(pod).split(b'"name":""', 1))


def revision(pool: AgentPool, template: Mapping[str, Any], template_hash: str) -> dict[str, Any]:
    """The ControllerRevision that keeps a template while the pool may have to go back to it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": pod_name(pool.metadata.name, template_hash),
            "namespace": pool.metadata.namespace,
            "labels": {POOL_LABEL: pool.metadata.name, TEMPLATE_HASH_LABEL: template_hash},
            "ownerReferences": [owner_reference(pool)],
        },
        "revision": pool.metadata.generation,
        "data": template,
    }


def owner_reference(pool: AgentPool) -> dict[str, Any]:
    """Makes the pool the controller of an object, which goes when the pool does."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": pool.metadata.name,
        "uid": pool.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def template_hash(template: Mapping[str, Any]) -> str:
    """Ten hex digits that change when the template does, however its keys are ordered."""
    canonical = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def pod_name(pool_name: str, suffix: str) -> str:
    """``POOL-SUFFIX``, with the pool's name cut and its dots replaced so that the whole is a host name."""
    room = NAME_LENGTH - len(suffix) - 1
    return f"{pool_name[:room].replace('.', '-').rstrip('-')}-{suffix}"
