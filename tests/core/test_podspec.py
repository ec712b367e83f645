"""The worker pod: marks of ours, nothing of a GitOps tool's, a hash that follows the template alone."""

from __future__ import annotations

import copy
import re
from typing import Any

import msgspec
import pytest

from app.core.podspec import encode_pod, pod_name, render, template_hash
from app.core.validation import validate
from app.model.agentpool import AgentPool, PoolSpec
from app.model.meta import DELETION_COST, SAFE_TO_EVICT, ObjectMeta


def template() -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": "velda-agent"}, "annotations": {"example.com/team": "ml"}},
        "spec": {"containers": [{"name": "agent", "image": "x"}], "nodeSelector": {"a": "b"}},
    }


def of(value: dict[str, Any]) -> tuple[AgentPool, PoolSpec]:
    """A pool with that template."""
    spec = validate("cpu", {"autoscaler": {"maxReplicas": 1, "minIdle": 0, "maxIdle": 0}, "template": value})
    assert isinstance(spec, PoolSpec)
    meta = ObjectMeta(
        name="cpu",
        namespace="default",
        uid="u-1",
        labels={"app.kubernetes.io/instance": "argo-app"},
        annotations={"argocd.argoproj.io/tracking-id": "x"},
    )
    return AgentPool(metadata=meta), spec


def rendered(value: dict[str, Any]) -> dict[str, Any]:
    pool, spec = of(value)
    return render(pool, spec, name="cpu-1", config_map="velda-config")


def test_the_whole_pod() -> None:
    value = template()
    assert rendered(value) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "cpu-1",
            "namespace": "default",
            "labels": {
                "app": "velda-agent",
                "velda.io/pool": "cpu",
                "velda.io/template-hash": template_hash(value),
            },
            "annotations": {
                "controller.kubernetes.io/pod-deletion-cost": "0",
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
                "example.com/team": "ml",
            },
            "ownerReferences": [
                {
                    "apiVersion": "velda.io/v1",
                    "kind": "AgentPool",
                    "name": "cpu",
                    "uid": "u-1",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "containers": [
                {
                    "name": "agent",
                    "image": "x",
                    "args": ["--pool=cpu"],
                    "volumeMounts": [{"name": "velda-config", "mountPath": "/run/velda", "readOnly": True}],
                }
            ],
            "nodeSelector": {"a": "b"},
            "volumes": [{"name": "velda-config", "configMap": {"name": "velda-config"}}],
        },
    }


def test_the_template_is_not_changed() -> None:
    value = template()
    before = copy.deepcopy(value)
    rendered(value)
    assert value == before


@pytest.mark.parametrize(
    "annotation",
    [
        "argocd.argoproj.io/tracking-id",
        "kustomize.toolkit.fluxcd.io/checksum",
        "helm.toolkit.fluxcd.io/name",
        "meta.helm.sh/release-name",
        "kubectl.kubernetes.io/last-applied-configuration",
    ],
)
def test_no_gitops_tool_takes_the_pod_for_its_own(annotation: str) -> None:
    value = template()
    value["metadata"]["annotations"] = {annotation: "x"}
    assert annotation not in rendered(value)["metadata"]["annotations"]


def test_what_the_template_says_of_eviction_stands() -> None:
    value = template()
    value["metadata"]["annotations"] = {SAFE_TO_EVICT: "false"}
    assert rendered(value)["metadata"]["annotations"] == {SAFE_TO_EVICT: "false", DELETION_COST: "0"}


def test_pods_that_differ_in_their_names_alone_are_encoded_as_each_by_itself() -> None:
    value = template()
    value["spec"]["containers"][0]["env"] = [{"name": "", "value": '"name":""'}]
    pool, spec = of(value)
    body = encode_pod(pool, spec, config_map="velda-config")
    for name in ("cpu-1", "cpu-2"):
        assert body.named(name) == msgspec.json.encode(render(pool, spec, name=name, config_map="velda-config"))


def test_the_hash_follows_content_not_order() -> None:
    value = template()
    reordered = {"spec": value["spec"], "metadata": value["metadata"]}
    assert template_hash(reordered) == template_hash(value)
    assert re.fullmatch(r"[0-9a-f]{10}", template_hash(value))
    assert template_hash(msgspec.json.decode(msgspec.json.encode(value))) == template_hash(value)
    value["spec"]["containers"][0]["image"] = "y"
    assert template_hash(value) != template_hash(reordered | {"spec": {}})
    assert template_hash(value) != template_hash(template())


@pytest.mark.parametrize(
    ("pool", "name"),
    [
        ("cpu", "cpu-0a1b2c3d"),
        ("a.b", "a-b-0a1b2c3d"),
        ("x" * 63, "x" * 54 + "-0a1b2c3d"),
        ("x" * 53 + "-y", "x" * 53 + "-0a1b2c3d"),
    ],
)
def test_pod_names_are_host_names(pool: str, name: str) -> None:
    assert pod_name(pool, "0a1b2c3d") == name
    assert len(name) <= 63
