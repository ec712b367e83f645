"""Which news of pods has the controller look at a pool again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import msgspec
import pytest

from app.broker.registry import Registry
from app.controller.cache import PoolCache
from app.controller.config_maps import ConfigMaps
from app.controller.pools import PoolController
from app.kube.client import Client
from app.kube.events import EventRecorder
from app.model.meta import POOL_LABEL, NamespacedName, ObjectMeta, OwnerReference
from app.model.pod import Pod, PodCondition, PodSpec, PodStatus

KEY = NamespacedName("n", "p")
OWNER = OwnerReference(kind="AgentPool", name="p", uid="pool-uid", controller=True)
META = ObjectMeta(name="p-1", namespace="n", uid="uid-1", labels={POOL_LABEL: "p"}, owner_references=(OWNER,))
NEW = Pod(metadata=META)
STARTED = Pod(
    metadata=msgspec.structs.replace(META, resource_version="2"),
    spec=PodSpec(node_name="n1"),
    status=PodStatus(phase="Running", pod_ip="10.0.0.1", conditions=(PodCondition("Ready", "True"),)),
)
FAILED = msgspec.structs.replace(STARTED, status=PodStatus(phase="Failed"))


@contextmanager
def looked_at(cache: PoolCache, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[NamespacedName]]:
    """Pools that are put into the controller's queue."""
    client = cast(Client, None)
    controller = PoolController(
        client=client,
        cache=cache,
        agents=Registry(cache, clock=lambda: 0.0, on_change=lambda pool: None),
        events=cast(EventRecorder, None),
        config_maps=ConfigMaps(client, cache, name="velda-config", content=None),
    )
    asked: list[NamespacedName] = []
    monkeypatch.setattr(controller._queue, "add", asked.append)
    with cache.listening(pod=controller._pod_changed):
        yield asked


def test_a_pod_that_starts_as_it_should_has_no_pool_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PoolCache()
    with looked_at(cache, monkeypatch) as asked:
        cache.pod_changed(None, NEW)
        assert asked == [KEY]
        cache.pod_changed(NEW, STARTED)
        assert asked == [KEY]
        cache.pod_changed(STARTED, FAILED)
        assert asked == [KEY, KEY]
        cache.pod_changed(FAILED, None)
        assert asked == [KEY, KEY, KEY]
