"""Each figure at a tiny size: its line comes, whole. How fast that was is not looked at."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.bench.__main__ import FIGURES
from tests.bench.bench import Bench
from tests.support import tools
from tests.support.cluster import Cluster

SIZES: dict[str, dict[str, Any]] = {
    "provisioning": {"pods": 3, "rounds": 1},
    "warm": {"count": 2},
    "reaction": {"samples": 3, "resting": 2},
    "steady": {"small": 1, "large": 2, "events": 10, "rest": 0.5, "settle": 0.5},
    "agents": {"count": 4, "settle": 0.2, "rest": 0.5},
    "dispatch": {"count": 4, "rate": 50, "seconds": 0.5},
    "admission": {"rate": 20, "seconds": 2, "rotations": 1, "at_once": 4},
    "failover": {"resting": 2, "tries": 1},
    "faults": {"tries": 1, "names": ["agents join twice"]},
    "large faults": {"names": ["false news"]},
    "simulation": {"steps": 200},
}
LINES = {
    "provisioning": {
        "provisioning": {"ours", "peer", "ratio", "cpu_seconds", "peer_cpu_seconds", "cpu_ratio", "peak"},
        "raw": {"ours", "peer", "ratio"},
    },
    "warm": {"warm": {"ours", "until_created", "until_running"}},
    "reaction": {"reaction": {"p50", "p99", "samples", "pools_at_rest"}},
    "steady": {"steady": {"core_share", "resident_mb", "event_ms", "growth"}, "restart": {"ours", "pods"}},
    "agents": {"agents": {"agents", "resident_kb_each", "core_share", "rejoined_seconds"}},
    "dispatch": {"dispatch": {"p50", "p99", "most_a_second", "plain_calls_a_second", "p50_with_token", "failed"}},
    "admission": {
        "admission": {
            *("p50", "p99", "wait_p99", "fresh_p50", "fresh_p99", "changing_p50", "changing_p99"),
            *("at_once_p99", "direct_p50", "kopf_p50", "go_p50", "direct_at_once_p99", "failed"),
        }
    },
    "failover": {"failover": {"ours", "least", "pools", "tries"}},
    "faults": {"faults": {"fault", "tries", "survived", "lost"}},
    "large faults": {"faults": {"fault", "tries", "survived", "lost"}},
    "simulation": {"simulation": {"steps", "seeds", "checks", "failures"}},
}
"""Of each figure the lines, and of each line the keys that somebody reads."""


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    tools.provide(tools.LOAD)
    cluster.install_crd()
    async with cluster.client() as client:
        yield Bench(cluster, client, quiet=0.5)


@pytest.mark.parametrize("figure", FIGURES)
async def test_figure_prints_its_lines(figure: str, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    await FIGURES[figure](bench, **SIZES[figure])
    lines = {line.pop("figure"): line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert set(lines) == set(LINES[figure])
    for name, keys in LINES[figure].items():
        assert {"ok", *keys} <= set(lines[name])
