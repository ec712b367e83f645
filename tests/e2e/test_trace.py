"""A trace from a running server, replayed against other numbers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.kube import paths
from tests.bench.agents import agents
from tests.bench.bench import Bench, pool
from tests.bench.process import serving
from tests.e2e.product import Sessions
from tests.support.cluster import Cluster
from tests.support.running import CHECKOUT

pytestmark = pytest.mark.e2e


async def test_a_servers_trace_can_be_replayed_against_other_numbers(cluster: Cluster, tmp_path: Path) -> None:
    await asyncio.to_thread(cluster.install_crd)
    traces = tmp_path / "traces"
    settings = f"trace: {{directory: {traces}}}\n"
    async with cluster.client() as client:
        bench = Bench(cluster, client)
        namespace = await bench.namespace()
        async with (
            serving(cluster.kubeconfig, tmp_path, namespace=namespace, settings=settings) as server,
            bench.watching(namespace) as watch,
            agents(watch, server.broker) as crew,
            Sessions(server.broker) as sessions,
        ):
            await server.logged("leading")
            await client.create(paths.agentpools(namespace), pool("traced", minIdle=1))
            await crew.reach(1, timeout=60)
            for session in await asyncio.gather(*(sessions.run(f"{namespace}/traced") for _ in range(3))):
                await sessions.end(session)
            await bench.remove(namespace)
    (trace,) = traces.glob(f"{namespace}_traced.jsonl")
    command = [sys.executable, "-m", "app", "replay", str(trace), "--min-idle", "3", "--json"]
    done = await asyncio.to_thread(subprocess.run, command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "recorded" in json.dumps(json.loads(done.stdout))
    assert trace.read_text().count('"sessionEnded"') == 3
