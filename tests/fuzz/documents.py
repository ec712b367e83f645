"""The good documents that fuzzing starts from: a pool with every field of ours, a pod, and reviews of them."""

from __future__ import annotations

import copy
from typing import Any

import yaml

from tests.support.running import CHECKOUT
from tests.webhook.questions import PODS, POOLS, USER

Document = dict[str, Any]
KEYS = (
    "velda.io/pool",
    "velda.io/config-map",
    "metadata",
    "labels",
    "annotations",
    "initContainers",
    "env",
    "securityContext",
)
"""Names that mean something to us or to Kubernetes."""


def pool() -> Document:
    found: Document = yaml.safe_load((CHECKOUT / "examples" / "cpu-pool.yaml").read_text(encoding="utf-8"))
    found["metadata"]["annotations"] = {"velda.io/config-map": "other"}
    spec = found["spec"]
    spec["autoscaler"] |= {"killUnknownAfterSecond": 300, "joinTimeoutSecond": 600, "targetHitRate": 0.99}
    spec["rollout"] = {
        "strategy": "RollingUpdate",
        "maxSurge": "25%",
        "maxUnavailable": 1,
        "progressDeadlineSecond": 600,
    }
    run = {"name": "day", "schedule": "0 8 * * 1-5", "durationSecond": 36000, "timeZone": "Europe/Berlin"}
    spec["schedules"] = [{**run, "minIdle": 5, "minReplicas": 1}]
    first = {"name": "first", "image": "busybox:1", "resources": {"limits": {"cpu": 1}}}
    spec["template"]["spec"]["initContainers"] = [first]
    return found


def pod() -> Document:
    spec = pool()["spec"]["template"]["spec"]
    del spec["containers"][0]["args"], spec["containers"][0]["volumeMounts"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labels": {"velda.io/pool": "p"}},
        "spec": spec,
    }


def review(value: Document, *, old: Document | None = None, resource: dict[str, str] = POOLS) -> Document:
    request = {
        "uid": "r-1",
        "kind": {"group": "velda.io", "version": "v1", "kind": "AgentPool"},
        "resource": resource,
        "name": value["metadata"]["name"],
        "namespace": "default",
        "operation": "UPDATE" if old else "CREATE",
        "userInfo": USER,
        "object": value,
        "oldObject": old,
        "dryRun": False,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def reviews() -> dict[str, Document]:
    old = copy.deepcopy(pool())
    old["spec"]["autoscaler"]["maxReplicas"] = 21
    return {
        "create": review(pool()),
        "update": review(pool(), old=old),
        "pod": review(pod(), resource=PODS),
    }
