"""``python -m tests.bench [FIGURE…]`` measures and prints a JSON line a figure; exit code 1 if one misses its limit."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.bench import admission, broker, faults, provisioning, reaction, simulation, steady
from tests.bench.bench import Bench
from tests.support import tools
from tests.support.cluster import Cluster, stage_process

FIGURES: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "provisioning": provisioning.measure,
    "warm": reaction.warm,
    "reaction": reaction.reaction,
    "steady": steady.measure,
    "agents": broker.agents,
    "dispatch": broker.dispatch,
    "admission": admission.measure,
    "failover": faults.failover,
    "faults": faults.faults,
    "large faults": faults.large_faults,
    "simulation": simulation.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], help="which; all of them if none is named")
    options = parser.parse_args()
    tools.provide((*tools.CONTROL_PLANE, *tools.LOAD))
    with stage_process("plane") as description:
        cluster = Cluster(kubeconfig=Path(description["kubeconfig"]), directory=Path(description["directory"]))
        return asyncio.run(_run(cluster, options.figures or list(FIGURES)))


async def _run(cluster: Cluster, figures: list[str]) -> int:
    cluster.install_crd()
    async with cluster.client() as client:
        bench = Bench(cluster, client)
        for name in figures:
            bench.say(f"figure {name}")
            await FIGURES[name](bench)
        if bench.failed:
            bench.say(f"missed: {', '.join(bench.failed)}")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
