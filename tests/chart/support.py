"""The chart as helm renders it, without any cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

import yaml

from tests.support.running import CHECKOUT
from tests.support.tools import tool

NAMESPACE = "velda"
Manifest = dict[str, Any]

VARIANTS: dict[str, Sequence[str]] = {
    "defaults": (),
    "everything": (
        "replicas=3",
        "image.tag=edge",
        "image.pullPolicy=Always",
        "imagePullSecrets[0].name=registry",
        "agents.config.daemon_config.max_sessions=4",
        "agents.brokerAddress=broker.example.com:50051",
        "webhook.mutateAgentPools=true",
        "webhook.failurePolicy=Ignore",
        "crds.keep=true",
        "serviceAccount.annotations.team=infra",
        "priorityClassName=system-cluster-critical",
        "nodeSelector.pool=system",
        "tolerations[0].operator=Exists",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].key=metadata.name",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].operator=In",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].values={a}",
        "podAnnotations.note=hello",
        "podLabels.team=infra",
        "trace.enabled=true",
        "argocd.healthChecks.enabled=true",
        "networkPolicy.enabled=true",
        "networkPolicy.clientNamespaces={ml}",
    ),
    "agents with tokens, over TLS": ("agents.authentication=token", "broker.tls=true"),
    "agents with certificates": ("agents.authentication=mtls",),
    "two namespaces": ("namespaces={default,kube-public}",),
    "a name of its own": ("fullnameOverride=scaler", "broker.aliasNamespaces={default,velda}"),
    "as little as possible": (
        "agents.createConfigMap=false",
        "broker.aliasNamespaces=null",
        "crds.install=false",
        "serviceAccount.create=false",
        "resources=null",
    ),
}
"""Names of sets of values, for ``helm --set``."""


def helm(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [str(tool("helm")), *args]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=check)


def template(*values: str, release: str = "velda", check: bool = True) -> subprocess.CompletedProcess[str]:
    sets = [f"--set={value}" for value in values]
    return helm("template", release, "chart", f"--namespace={NAMESPACE}", *sets, check=check)


def render(*values: str, release: str = "velda") -> list[Manifest]:
    """All manifests, those of hooks included."""
    return [item for item in yaml.safe_load_all(template(*values, release=release).stdout) if item]


def pick(manifests: Sequence[Manifest], kind: str, name: str, namespace: str | None = None) -> Manifest:
    """The one of that kind and name; of its namespace, if that is given."""
    (found,) = (
        item
        for item in manifests
        if (item["kind"], item["metadata"]["name"]) == (kind, name)
        and namespace in (None, item["metadata"].get("namespace"))
    )
    return found


def is_hook(manifest: Manifest) -> bool:
    return "helm.sh/hook" in (manifest["metadata"].get("annotations") or {})
