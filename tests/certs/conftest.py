from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.certs.world import Bench
from tests.support.cluster import Cluster


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    async with cluster.client() as client:
        bench = Bench(client, cluster.namespace())
        await bench.create_configurations()
        yield bench
        await bench.delete_configurations()
