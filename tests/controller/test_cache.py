"""What the informers have shown, by pool; and what the broker may ask of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from app.controller.cache import PoolCache
from app.model.agentpool import AgentPool
from app.model.meta import POOL_LABEL, NamespacedName, ObjectMeta, OwnerReference
from app.model.pod import Pod, PodIP, PodSpec, PodStatus

KEY = NamespacedName("n", "p")


def pool(name: str = "p", namespace: str = "n", spec: Any = None) -> AgentPool:
    return AgentPool(metadata=ObjectMeta(name=name, namespace=namespace, uid=f"uid-{namespace}-{name}"), spec=spec)


def pod(name: str, *, of: str = "p", owner: str = "uid-n-p") -> Pod:
    owners = (OwnerReference(kind="AgentPool", name=of, uid=owner, controller=True),) if owner else ()
    meta = ObjectMeta(name=name, namespace="n", uid=f"uid-{name}", labels={POOL_LABEL: of}, owner_references=owners)
    return Pod(metadata=meta, status=PodStatus(pod_ip="127.80.0.1"))


def test_listeners_are_told_which_pool_a_pod_belongs_to_until_they_leave() -> None:
    cache = PoolCache()
    seen: list[Any] = []
    with cache.listening(pool=seen.append, pod=lambda key, old, new: seen.append((key, old, new))):
        cache.pool_changed(None, pool())
        cache.pod_changed(None, pod("a"))
        cache.pod_changed(pod("a"), None)
    cache.pod_changed(None, pod("b"))
    assert seen == [KEY, (KEY, None, pod("a")), (KEY, pod("a"), None)]
    assert list(cache.labelled_pods(KEY)) == ["b"]


def test_a_pod_whose_label_is_edited_leaves_one_pool_and_enters_another() -> None:
    cache = PoolCache()
    cache.pod_changed(None, pod("a"))
    cache.pod_changed(pod("a"), pod("a", of="q"))
    assert list(cache.labelled_pods(KEY)) == []
    assert list(cache.labelled_pods(NamespacedName("n", "q"))) == ["a"]


def test_a_bare_name_finds_the_pools_of_every_namespace_and_a_full_one_just_its_own() -> None:
    cache = PoolCache()
    for namespace in "mn":
        cache.pool_changed(None, pool(namespace=namespace))
    assert [info.key for info in cache.find_pools("p")] == [NamespacedName("m", "p"), KEY]
    assert [info.key for info in cache.find_pools("n/p")] == [KEY]
    assert cache.find_pools("q") == []
    cache.pool_changed(pool(namespace="m"), None)
    assert [info.key for info in cache.find_pools("p")] == [KEY]
    assert cache.keys_in("m") == []


def test_only_a_pod_that_the_pool_owns_is_an_agents_pod() -> None:
    cache = PoolCache()
    cache.pool_changed(None, pool())
    cache.pod_changed(None, pod("mine"))
    cache.pod_changed(None, pod("orphan", owner=""))
    cache.pod_changed(None, pod("foreign", owner="uid-of-an-older-pool"))
    found = cache.find_pod(KEY, "mine")
    assert found is not None
    assert (found.ip, found.terminating) == ("127.80.0.1", False)
    assert cache.find_pod(KEY, "orphan") is None
    assert cache.find_pod(KEY, "foreign") is None
    assert cache.find_pod(KEY, "nobody") is None
    assert cache.may_join(KEY) == {"mine", "orphan"}
    assert cache.may_join(NamespacedName("n", "no-pool")) == set()


def test_a_terminating_pod_is_told_as_such() -> None:
    cache = PoolCache()
    cache.pool_changed(None, pool())
    meta = msgspec.structs.replace(pod("a").metadata, deletion_timestamp=datetime.now(UTC))
    cache.pod_changed(None, msgspec.structs.replace(pod("a"), metadata=meta))
    found = cache.find_pod(KEY, "a")
    assert found is not None
    assert found.terminating


def test_where_an_agent_may_dial_from_and_whether_others_share_it() -> None:
    cache = PoolCache()
    cache.pool_changed(None, pool())
    status = PodStatus(pod_ip="10.0.0.1", pod_ips=(PodIP("10.0.0.1"), PodIP("fd00::1")))
    cache.pod_changed(None, msgspec.structs.replace(pod("a"), status=status, spec=PodSpec(host_network=True)))
    found = cache.find_pod(KEY, "a")
    assert found is not None
    assert (found.ip, found.more_ips, found.host_network) == ("10.0.0.1", ("fd00::1",), True)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_no_live_one(phase: str) -> None:
    """Its address may be another's."""
    cache = PoolCache()
    cache.pool_changed(None, pool())
    cache.pod_changed(None, msgspec.structs.replace(pod("a"), status=PodStatus(phase=phase, pod_ip="10.0.0.1")))
    found = cache.find_pod(KEY, "a")
    assert found is not None
    assert found.terminating


def test_slots_are_read_from_a_spec_that_may_be_anything() -> None:
    cache = PoolCache()
    for spec, slots in [
        ({"autoscaler": {"defaultSlotsPerAgent": 4}}, 4),
        ({"autoscaler": {"defaultSlotsPerAgent": "4"}}, 1),
        ({"autoscaler": {"defaultSlotsPerAgent": -1}}, 1),
        ({"autoscaler": None}, 1),
        ("nonsense", 1),
    ]:
        cache.pool_changed(None, pool(spec=spec))
        assert cache.pools()[0].default_slots == slots


def test_an_allocation_error_is_told_until_it_is_cleared_and_survives_an_edit() -> None:
    cache = PoolCache()
    cache.pool_changed(None, pool())
    cache.report_error(KEY, "exceeded quota", 5.0)
    cache.pool_changed(pool(), pool(spec={}))
    assert (cache.pools()[0].allocation_error, cache.pools()[0].allocation_error_time) == ("exceeded quota", 5.0)
    cache.report_error(KEY, "", None)
    assert cache.pools()[0].allocation_error == ""
