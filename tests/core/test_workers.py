"""Which changes of a pod give reason to decide anew: each that makes its worker another one, and no others."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.workers import Worker, alike, classify, track
from app.model.meta import DELETION_COST, POOL_LABEL, SAFE_TO_EVICT, TEMPLATE_HASH_LABEL, ObjectMeta, OwnerReference
from app.model.pod import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Pod,
    PodCondition,
    PodSpec,
    PodStatus,
)

SCHEDULED = PodCondition("PodScheduled", "True")
UNSCHEDULABLE = PodCondition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available")
GATED = PodCondition("PodScheduled", "False", "SchedulingGated")
READY = PodCondition("Ready", "True")
OURS = OwnerReference("velda.io/v1", "AgentPool", "p", "pool-uid", controller=True)
LABELS = {POOL_LABEL: "p", TEMPLATE_HASH_LABEL: "v1"}

metas = st.builds(
    ObjectMeta,
    name=st.just("a"),
    namespace=st.just("n"),
    uid=st.sampled_from(("uid-1", "uid-2")),
    resource_version=st.sampled_from(("1", "2")),
    labels=st.sampled_from((LABELS, {**LABELS, TEMPLATE_HASH_LABEL: "v2"}, {POOL_LABEL: "p"})),
    annotations=st.sampled_from((None, {DELETION_COST: "0"}, {DELETION_COST: "100"}, {SAFE_TO_EVICT: "false"})),
    owner_references=st.sampled_from(((OURS,), ())),
    deletion_timestamp=st.sampled_from((None, datetime(2026, 1, 1, tzinfo=UTC))),
)
states = st.sampled_from(
    (
        ContainerState(running=ContainerStateRunning()),
        ContainerState(waiting=ContainerStateWaiting("ContainerCreating")),
        ContainerState(waiting=ContainerStateWaiting("ImagePullBackOff", "no such image")),
        ContainerState(waiting=ContainerStateWaiting("CrashLoopBackOff", "back-off 10s")),
        ContainerState(terminated=ContainerStateTerminated(1, "Error", "out of luck")),
    )
)
statuses = st.builds(
    PodStatus,
    phase=st.sampled_from(("Pending", "Running", "Failed")),
    reason=st.sampled_from(("", "Evicted")),
    pod_ip=st.sampled_from(("", "10.0.0.1")),
    conditions=st.lists(st.sampled_from((SCHEDULED, UNSCHEDULABLE, GATED, READY)), max_size=2).map(tuple),
    container_statuses=st.builds(ContainerStatus, name=st.just("agent"), state=states).map(lambda one: (one,)),
)
pods = st.builds(Pod, metadata=metas, spec=st.builds(PodSpec, node_name=st.sampled_from(("", "n1"))), status=statuses)


def with_parts_of(pod: Pod, other: Pod, parts: set[str]) -> Pod:
    """The pod, with some of its fields as another has them."""

    def mixed(of: Any, like: Any) -> Any:
        return msgspec.structs.replace(
            of, **{name: getattr(like, name) for name in of.__struct_fields__ if name in parts}
        )

    return Pod(
        metadata=mixed(pod.metadata, other.metadata),
        spec=mixed(pod.spec, other.spec),
        status=mixed(pod.status, other.status),
    )


def worker(pod: Pod) -> Worker:
    """As the rules see the pod, wherever it runs."""
    waits = track({}, [pod], {}, now=1.0)
    options = {"default_slots": 1, "join_timeout": 60.0, "inherited": {}, "deleting": (), "waits": waits, "now": 50.0}
    (found,) = classify([pod], {}, **options)  # type: ignore[arg-type]
    return msgspec.structs.replace(found, node="")


FIELDS = sorted({*ObjectMeta.__struct_fields__, *PodSpec.__struct_fields__, *PodStatus.__struct_fields__})


@given(pods, pods, st.sets(st.sampled_from(FIELDS), max_size=3))
def test_who_is_alike_is_the_same_worker(old: Pod, other: Pod, parts: set[str]) -> None:
    new = with_parts_of(old, other, parts)
    if alike(old, new):
        assert worker(old) == worker(new)


def pod(*conditions: PodCondition, phase: str = "Pending", version: str = "1", **meta: Any) -> Pod:
    meta = {"uid": "uid-1", "labels": LABELS, "owner_references": (OURS,)} | meta
    return Pod(
        metadata=ObjectMeta(name="a", namespace="n", resource_version=version, **meta),
        status=PodStatus(phase=phase, conditions=conditions),
    )


def test_a_pod_that_gets_a_node_and_starts_is_alike_all_the_way() -> None:
    way = [
        pod(),
        pod(SCHEDULED, version="2"),
        pod(SCHEDULED, phase="Running", version="3"),
        pod(SCHEDULED, READY, phase="Running", version="4"),
    ]
    assert all(alike(old, new) for old, new in pairwise(way))


def test_what_others_note_on_a_pod_is_no_news() -> None:
    address = {"cni.projectcalico.org/podIP": "10.0.0.7/32"}
    assert alike(pod(), pod(labels={**LABELS, "app": "cpu"}, annotations=address, version="2"))


@pytest.mark.parametrize(
    "new",
    [
        pod(UNSCHEDULABLE),
        pod(phase="Succeeded"),
        pod(deletion_timestamp=datetime(2026, 1, 1, tzinfo=UTC)),
        pod(labels={**LABELS, TEMPLATE_HASH_LABEL: "v2"}),
        pod(annotations={DELETION_COST: "100"}),
        pod(annotations={SAFE_TO_EVICT: "true"}),
        pod(uid="uid-2"),
    ],
    ids=["unschedulable", "ended", "deleted", "template", "deletion cost", "may be evicted", "another of that name"],
)
def test_what_rules_read_is_not_alike(new: Pod) -> None:
    assert not alike(pod(), new)


def test_a_pod_without_an_owner_is_news_each_time() -> None:
    orphan = pod(owner_references=())
    assert not alike(orphan, pod(owner_references=(), version="2"))
    assert not alike(pod(), orphan)
    assert not alike(orphan, pod())
