"""What the informers have shown, indexed by pool, so that an event costs the same however many pools there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from app.core.agents import AgentPod, PoolInfo
from app.model.agentpool import AgentPool
from app.model.meta import POOL_LABEL, TEMPLATE_HASH_LABEL, NamespacedName
from app.model.pod import Pod
from app.model.revision import ControllerRevision

PoolListener = Callable[[NamespacedName], None]
PodListener = Callable[[NamespacedName, Pod | None, Pod | None], None]


class PoolCache:
    """Pools and their pods. Also the broker's PoolDirectory: it answers without a request."""

    def __init__(self) -> None:
        self._pools: dict[NamespacedName, AgentPool] = {}
        self._info: dict[NamespacedName, PoolInfo] = {}
        self._names: dict[str, set[NamespacedName]] = {}
        self._pods: dict[NamespacedName, dict[str, Pod]] = {}
        self._revisions: dict[NamespacedName, dict[str, ControllerRevision]] = {}
        self._pool_listeners: list[PoolListener] = []
        self._pod_listeners: list[PodListener] = []

    @contextmanager
    def listening(self, *, pod: PodListener, pool: PoolListener = lambda key: None) -> Iterator[None]:
        """Be told of each changed pool, and of each changed pod with its pool (old, new; None where there is none)."""
        self._pool_listeners.append(pool)
        self._pod_listeners.append(pod)
        try:
            yield
        finally:
            self._pool_listeners.remove(pool)
            self._pod_listeners.remove(pod)

    # Fed by the informers.

    def pool_changed(self, old: AgentPool | None, new: AgentPool | None) -> None:
        present = new or old
        if present is None:
            return
        key = present.metadata.key
        if new is None:
            self._forget(key)
        else:
            self._pools[key] = new
            self._names.setdefault(key.name, set()).add(key)
            self._set_info(key, new)
        for listener in self._pool_listeners:
            listener(key)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """A pod whose pool label is edited leaves one pool and enters another."""
        before, after = _pool_of(old), _pool_of(new)
        if before and before != after:
            self._pod_in(before, old, None)
        if after:
            self._pod_in(after, old if before == after else None, new)

    def revision_changed(self, old: ControllerRevision | None, new: ControllerRevision | None) -> None:
        present = new or old
        if present is None:
            return
        key = NamespacedName(present.metadata.namespace, present.metadata.label(POOL_LABEL))
        kept = self._revisions.setdefault(key, {})
        if new:
            kept[new.metadata.name] = new
        else:
            kept.pop(present.metadata.name, None)
        if not kept:
            del self._revisions[key]

    def _pod_in(self, key: NamespacedName, old: Pod | None, new: Pod | None) -> None:
        pods = self._pods.setdefault(key, {})
        if new:
            pods[new.metadata.name] = new
        elif old:
            pods.pop(old.metadata.name, None)
        if not pods:
            del self._pods[key]
        for listener in self._pod_listeners:
            listener(key, old, new)

    def _forget(self, key: NamespacedName) -> None:
        self._pools.pop(key, None)
        self._info.pop(key, None)
        named = self._names.get(key.name, set())
        named.discard(key)
        if not named:
            self._names.pop(key.name, None)

    def _set_info(self, key: NamespacedName, pool: AgentPool) -> None:
        self._info[key] = msgspec.structs.replace(
            self._info.get(key, PoolInfo(key)),
            default_slots=_default_slots(pool),
            deleting=pool.metadata.deletion_timestamp is not None,
        )

    # Read by the controller.

    def pool(self, key: NamespacedName) -> AgentPool | None:
        return self._pools.get(key)

    def pool_keys(self) -> list[NamespacedName]:
        return list(self._pools)

    def keys_in(self, namespace: str) -> list[NamespacedName]:
        return [key for key in self._pools if key.namespace == namespace]

    def labelled_pods(self, key: NamespacedName) -> Mapping[str, Pod]:
        """Pods that carry the pool's label, whoever owns them, by name."""
        return self._pods.get(key, {})

    def revisions(self, key: NamespacedName, *, owner: str) -> dict[str, dict[str, Any]]:
        """The templates kept for the pool with that uid, by their hash."""
        return {
            revision.metadata.label(TEMPLATE_HASH_LABEL): revision.data
            for revision in self._revisions.get(key, {}).values()
            if revision.metadata.controller_uid() == owner and isinstance(revision.data, dict)
        }

    def report_error(self, key: NamespacedName, error: str, when: float | None) -> None:
        """What the last failed creation said (empty: all is well), for those who watch the pool through the broker."""
        if info := self._info.get(key):
            self._info[key] = msgspec.structs.replace(info, allocation_error=error, allocation_error_time=when)

    # PoolDirectory, read by the broker.

    def pools(self) -> list[PoolInfo]:
        return [self._info[key] for key in sorted(self._info)]

    def find_pools(self, name: str) -> list[PoolInfo]:
        namespace, slash, bare = name.partition("/")
        if slash:
            info = self._info.get(NamespacedName(namespace, bare))
            return [info] if info else []
        return [self._info[key] for key in sorted(self._names.get(name, ()))]

    def may_join(self, pool: NamespacedName) -> set[str]:
        owners = {"", self._pools[pool].metadata.uid} if pool in self._pools else set()
        pods = self.labelled_pods(pool).items()
        return {name for name, pod in pods if pod.status.pod_ip and pod.metadata.controller_uid() in owners}

    def find_pod(self, pool: NamespacedName, name: str) -> AgentPod | None:
        owner, pod = self._pools.get(pool), self.labelled_pods(pool).get(name)
        if owner is None or pod is None or pod.metadata.controller_uid() != owner.metadata.uid:
            return None
        return AgentPod(
            pool=pool,
            name=name,
            uid=pod.metadata.uid,
            ip=pod.status.pod_ip,
            more_ips=tuple(other.ip for other in pod.status.pod_ips if other.ip != pod.status.pod_ip),
            host_network=pod.spec.host_network,
            terminating=pod.metadata.deletion_timestamp is not None or pod.status.ended,
        )


def _pool_of(pod: Pod | None) -> NamespacedName | None:
    name = pod.metadata.label(POOL_LABEL) if pod else ""
    return NamespacedName(pod.metadata.namespace, name) if pod and name else None


def _default_slots(pool: AgentPool) -> int:
    """As the spec says it, for a spec that may be anything."""
    autoscaler = pool.spec.get("autoscaler") if isinstance(pool.spec, dict) else None
    slots = autoscaler.get("defaultSlotsPerAgent", 1) if isinstance(autoscaler, dict) else 1
    return slots if isinstance(slots, int) and slots > 0 else 1
