"""The ConfigMap for agents, on a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from app.controller import config_maps as module
from app.controller.cache import PoolCache
from app.controller.config_maps import ConfigMaps
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.agentpool import AgentPool
from app.model.meta import MANAGED_BY_LABEL, MANAGER, NamespacedName, ObjectMeta
from tests.support.cluster import Cluster

CONTENT = "broker: velda-apiserver.velda.svc:50051\n"
TIMEOUT = 20.0


class Bench:
    """A namespace, the pools that the cache knows in it, and the ConfigMap there."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.cache = PoolCache()
        self.path = paths.config_map(NamespacedName(namespace, "velda-config"))

    def config_maps(self, content: str | None = CONTENT, bundle: bytes = b"") -> ConfigMaps:
        return ConfigMaps(self.client, self.cache, name="velda-config", content=content, bundle=lambda: bundle)

    def add_pool(self, name: str) -> AgentPool:
        pool = AgentPool(metadata=ObjectMeta(name=name, namespace=self.namespace, uid=name), spec={})
        self.cache.pool_changed(None, pool)
        return pool

    async def create(self, data: dict[str, str], **labels: str) -> None:
        meta = {"name": "velda-config", "labels": labels}
        await self.client.create(paths.config_maps(self.namespace), {"metadata": meta, "data": data})

    async def stored(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = msgspec.json.decode(await self.client.get(self.path))
        except ApiError as error:
            if error.not_found:
                return None
            raise
        return found

    async def data(self) -> dict[str, str] | None:
        found = await self.stored()
        return found and found.get("data")


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    async with cluster.client() as client:
        yield Bench(client, cluster.namespace())


async def test_the_ca_is_kept_beside_it_as_long_as_agents_need_one(bench: Bench) -> None:
    for bundle in (b"", b"old", b"old and new", b""):
        await bench.config_maps(bundle=bundle).ensure(bench.namespace)
        assert await bench.data() == {"velda.yaml": CONTENT, **({"ca.crt": bundle.decode()} if bundle else {})}


async def test_it_is_made_where_it_is_missing(bench: Bench) -> None:
    await bench.config_maps().ensure(bench.namespace)
    found = await bench.stored()
    assert found
    assert found["data"] == {"velda.yaml": CONTENT}
    assert found["metadata"]["labels"] == {MANAGED_BY_LABEL: MANAGER}


async def test_a_user_who_applies_one_over_ours_takes_it_over(bench: Bench) -> None:
    maps = bench.config_maps()
    await maps.ensure(bench.namespace)
    meta = {"name": "velda-config", "namespace": bench.namespace}
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"velda.yaml": "mine"}}
    await bench.client.apply(bench.path, mine, manager="kubectl-client-side-apply")
    await bench.config_maps().ensure(bench.namespace)
    await maps.pool_gone(bench.namespace)
    assert await bench.data() == {"velda.yaml": "mine"}


async def test_ours_is_brought_to_a_new_content(bench: Bench) -> None:
    await bench.config_maps("old").ensure(bench.namespace)
    await bench.config_maps().ensure(bench.namespace)
    assert await bench.data() == {"velda.yaml": CONTENT}


async def test_one_that_is_as_it_should_be_is_not_written(bench: Bench) -> None:
    await bench.config_maps().ensure(bench.namespace)
    before = await bench.stored()
    await bench.config_maps().ensure(bench.namespace)
    assert await bench.stored() == before


async def test_a_users_own_is_never_touched(bench: Bench) -> None:
    await bench.create({"velda.yaml": "mine"}, team="ml")
    maps = bench.config_maps()
    await maps.ensure(bench.namespace)
    await maps.pool_gone(bench.namespace)
    assert await bench.data() == {"velda.yaml": "mine"}


async def test_it_goes_with_the_last_pool(bench: Bench) -> None:
    maps, first, second = bench.config_maps(), bench.add_pool("first"), bench.add_pool("second")
    await maps.ensure(bench.namespace)
    bench.cache.pool_changed(first, None)
    await maps.pool_gone(bench.namespace)
    assert await bench.data() == {"velda.yaml": CONTENT}
    bench.cache.pool_changed(second, None)
    await maps.pool_gone(bench.namespace)
    assert await bench.stored() is None


async def test_it_comes_back_with_the_next_pool(bench: Bench) -> None:
    maps = bench.config_maps()
    await maps.ensure(bench.namespace)
    await maps.pool_gone(bench.namespace)
    await maps.ensure(bench.namespace)
    assert await bench.data() == {"velda.yaml": CONTENT}


async def test_without_a_content_nothing_is_done(bench: Bench) -> None:
    await bench.create({"velda.yaml": CONTENT}, **{MANAGED_BY_LABEL: MANAGER})
    maps = bench.config_maps(None)
    await maps.ensure(bench.namespace)
    await maps.pool_gone(bench.namespace)
    assert await bench.data() == {"velda.yaml": CONTENT}


async def test_creators_that_come_together_look_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    get = bench.client.get

    async def counted(path: str, **options: Any) -> bytes:
        asked.append(path)
        return await get(path, **options)

    monkeypatch.setattr(bench.client, "get", counted)
    maps = bench.config_maps()
    await asyncio.gather(*(maps.ensure(bench.namespace) for _ in range(20)))
    await maps.ensure(bench.namespace)
    assert asked == [bench.path]


async def test_a_creator_that_is_cancelled_does_not_stop_the_others(bench: Bench) -> None:
    maps = bench.config_maps()
    first, second = (asyncio.create_task(maps.ensure(bench.namespace)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert await bench.data() == {"velda.yaml": CONTENT}


async def test_a_namespace_that_is_not_there_stops_nobody(bench: Bench) -> None:
    maps = bench.config_maps()
    await maps.ensure("no-such-namespace")
    await maps.pool_gone("no-such-namespace")


async def test_what_is_removed_by_hand_is_made_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where there are pools."""
    monkeypatch.setattr(module, "CHECK_INTERVAL", 0.05)
    bench.add_pool("pool")
    written = asyncio.Event()
    apply = bench.client.apply

    async def noticed(path: str, body: Any, **options: Any) -> bytes:
        answer = await apply(path, body, **options)
        written.set()
        return answer

    monkeypatch.setattr(bench.client, "apply", noticed)
    running = asyncio.create_task(bench.config_maps().run())
    for _ in range(2):
        await asyncio.wait_for(written.wait(), TIMEOUT)
        written.clear()
        await bench.client.delete(bench.path)
    await asyncio.wait_for(written.wait(), TIMEOUT)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert await bench.data() == {"velda.yaml": CONTENT}
