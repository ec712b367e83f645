"""Quotas: how many agents fit, counted as the API server counts a pod."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.quota import shortfalls
from app.model.meta import ObjectMeta
from app.model.quota import QuotaSpec, ResourceQuota


def quota(**spec: Any) -> ResourceQuota:
    return ResourceQuota(metadata=ObjectMeta(name="q"), spec=QuotaSpec(**spec))


def container(limits: dict[str, Any] | None = None, **requests: Any) -> dict[str, Any]:
    return {"resources": {"requests": requests, "limits": limits or {}}}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(containers), **spec}}


@pytest.mark.parametrize(
    ("hard", "room"),
    [
        ({"pods": "3"}, "3 agents (pods: 3)"),
        ({"count/pods": "1"}, "1 agent (count/pods: 1)"),
        ({"cpu": "1500m"}, "3 agents (cpu: 1500m)"),
        ({"requests.cpu": "1"}, "2 agents (requests.cpu: 1)"),
        ({"limits.cpu": "0"}, "0 agents (limits.cpu: 0)"),
        ({"requests.memory": "3Gi"}, "3 agents (requests.memory: 3Gi)"),
        ({"requests.nvidia.com/gpu": "2"}, "2 agents (requests.nvidia.com/gpu: 2)"),
    ],
)
def test_a_quota_that_is_too_small(hard: dict[str, str], room: str) -> None:
    value = pod(container({"cpu": 1}, **{"cpu": "500m", "memory": "1073741824", "nvidia.com/gpu": 1}))
    (found,) = shortfalls(value, [quota(hard=hard)], replicas=4)
    assert found == f"ResourceQuota q has room for {room}, maxReplicas is 4"


@pytest.mark.parametrize(
    "spec",
    [
        {"hard": None},
        {"hard": {"pods": "4", "cpu": "2", "services": "0", "limits.memory": "0", "requests.storage": "0"}},
        {"hard": {"pods": "1"}, "scopes": ("BestEffort",)},
        {"hard": {"pods": "1"}, "scope_selector": {"matchExpressions": []}},
        {"hard": {"pods": "1e1", "cpu": "2e0"}},
    ],
)
def test_a_quota_that_is_none_or_large_enough(spec: dict[str, Any]) -> None:
    assert shortfalls(pod(container(cpu="0.5")), [quota(**spec)], replicas=4) == []


def test_the_whole_pod_counts() -> None:
    value = pod(
        container(cpu=1),
        container(cpu=1),
        initContainers=[container(cpu=9), {**container(cpu=2), "restartPolicy": "Always"}],
        overhead={"cpu": "1"},
    )
    (found,) = shortfalls(value, [quota(hard={"cpu": "29"})], replicas=3)
    assert found.startswith("ResourceQuota q has room for 2 agents")
    assert shortfalls(value, [quota(hard={"cpu": "30"})], replicas=3) == []
