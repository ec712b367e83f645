"""What a large cluster at rest costs, what one event costs in it, and how long a start takes."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Iterator

import msgspec

from app.kube import paths
from app.model.meta import DELETION_COST, NamespacedName
from tests.bench.bench import Bench, Watch, pool
from tests.bench.process import Server, serving

PODS_A_POOL = 10
RATE = 200
"""Events a second."""


async def measure(
    bench: Bench,
    *,
    small: int = 100,
    large: int = 1000,
    events: int = 2000,
    rounds: int = 5,
    rest: float = 30.0,
    settle: float = 5.0,
) -> None:
    """Lines ``steady`` and ``restart``; ``small`` and ``large`` are numbers of pools with ten pods each.

    No agents join: their pods wait in pools that give them a day to.
    """
    namespace = await bench.namespace()
    async with bench.watching(namespace) as watch:
        async with serving(bench.cluster.kubeconfig, bench.directory) as server:
            await server.logged("leading")
            await _grow(bench, watch, namespace, range(small))
            await asyncio.sleep(settle)
            at_small = await _event_cost(bench, server, watch, events, rounds)
            await _grow(bench, watch, namespace, range(small, large))
            await asyncio.sleep(settle)
            at_large = await _event_cost(bench, server, watch, events, rounds)
            share, resident = await server.core_share(rest), server.resident_bytes() / 1e6
        growth = at_large / at_small
        bench.line(
            "steady",
            ok=share <= 0.03 and resident <= 400 and growth <= 1.2,
            pools=large,
            pods=large * PODS_A_POOL,
            core_share=share,
            limit_core_share=0.03,
            resident_mb=resident,
            limit_resident_mb=400,
            event_ms=at_large * 1000,
            event_ms_small=at_small * 1000,
            small_pods=small * PODS_A_POOL,
            growth=growth,
            limit_growth=1.2,
        )
        await _restart(bench, namespace, watch)


async def _restart(bench: Bench, namespace: str, watch: Watch) -> None:
    """A pool appears while nobody leads: from the start of a process until its pod is there; then all goes."""
    await bench.client.create(paths.agentpools(namespace), pool("late", minReplicas=1))
    wanted = watch.count + 1
    began = time.perf_counter()
    async with serving(bench.cluster.kubeconfig, bench.directory):
        await watch.reaches(wanted, timeout=60)
        seconds, pods = time.perf_counter() - began, watch.count
        await bench.remove(namespace)
    bench.line("restart", ok=seconds <= 10, unit="s", ours=seconds, limit=10, pods=pods)


async def _grow(bench: Bench, watch: Watch, namespace: str, numbers: range) -> None:
    bench.say(f"growing to {numbers.stop} pools of {PODS_A_POOL} pods")
    for number in numbers:
        await bench.client.create(paths.agentpools(namespace), pool(f"pool-{number}", minReplicas=PODS_A_POOL))
    await watch.reaches(numbers.stop * PODS_A_POOL, timeout=600)
    await watch.reaches(numbers.stop * PODS_A_POOL, timeout=600, running=True)


async def _event_cost(bench: Bench, server: Server, watch: Watch, events: int, rounds: int) -> float:
    """CPU seconds of the server for one pod event that its pool has to decide on: the median of some rounds of them.

    It is one of the annotations that follow the agent's state, on pods drawn at random; of a pod whose agent has not
    joined it may say what it likes, so that nothing is written in answer. They come one by one: faster, and a few pools
    take several of them together, many do not.
    """
    keys, values, costs = list(watch.informer.store), itertools.count(), []
    for number in range(rounds):
        drawn = random.Random(number).choices(keys, k=events)
        began, before = time.perf_counter(), server.cpu_seconds()
        pending = ((began + index / RATE, key, next(values)) for index, key in enumerate(drawn))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(_touch(bench, pending))
        await asyncio.sleep(1.0)
        costs.append((server.cpu_seconds() - before) / events)
    return statistics.median(costs)


async def _touch(bench: Bench, pending: Iterator[tuple[float, NamespacedName, int]]) -> None:
    for due, key, value in pending:
        await asyncio.sleep(due - time.perf_counter())
        body = msgspec.json.encode({"metadata": {"annotations": {DELETION_COST: str(value)}}})
        await bench.client.merge_patch(paths.pod(key), body)
