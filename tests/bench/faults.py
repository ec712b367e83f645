"""What it costs when the leader dies, and how often each fault was survived."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from app.kube import paths
from app.model.meta import NamespacedName
from tests.bench.bench import Bench, Watch, pool
from tests.bench.process import Server, serving
from tests.faults.scenarios import LARGE, SCENARIOS
from tests.faults.scene import World, world

PATIENCE = 120.0


async def failover(bench: Bench, *, resting: int = 1000, tries: int = 3) -> None:
    """Line ``failover``: kill -9 of the leader until another has made the pod that goes missing then; default Lease."""
    namespace, others = await bench.namespace(), await bench.namespace()
    bench.say(f"{resting} pools at rest")
    for number in range(resting):
        await bench.client.create(paths.agentpools(others), pool(f"rest-{number}"))
    async with AsyncExitStack() as stack:
        watch = await stack.enter_async_context(bench.watching(namespace))
        leader = await _replica(bench, stack)
        await leader.logged("leading")
        await bench.at_rest(others)
        await bench.client.create(paths.agentpools(namespace), pool("missed", minReplicas=1))
        await watch.reaches(1, timeout=PATIENCE)
        times: list[float] = []
        for _ in range(tries):
            follower = await _replica(bench, stack)
            await follower.logged("waiting for the lease")
            times.append(await _change_of_leader(bench, watch, leader))
            leader = follower
            bench.say(f"another acted after {times[-1]:.1f} s")
        await bench.remove(namespace)
        await bench.remove(others)
    bench.line(
        "failover",
        ok=max(times) <= 15,
        unit="s",
        ours=max(times),
        limit=15,
        least=min(times),
        pools=resting,
        tries=tries,
    )


async def faults(bench: Bench, *, tries: int = 3, names: Sequence[str] = tuple(SCENARIOS)) -> None:
    """A line ``faults`` for each: tries, those after which all was right in time, sessions lost."""
    async with world() as made:
        for name in names:
            await _survive(bench, made, name, tries=tries)


async def large_faults(bench: Bench, *, names: Sequence[str] = tuple(LARGE)) -> None:
    """The same of those that take minutes, once."""
    await faults(bench, tries=1, names=names)


async def _survive(bench: Bench, made: World, name: str, *, tries: int) -> None:
    survived, lost = 0, made.lost
    for _ in range(tries):
        try:
            await {**SCENARIOS, **LARGE}[name](made)
            survived += 1
        except* Exception as group:  # whatever it is, the fault was not survived
            bench.say(f"{name}: {group.exceptions}")
    lost = made.lost - lost
    bench.line("faults", ok=survived == tries and not lost, fault=name, tries=tries, survived=survived, lost=lost)


async def _replica(bench: Bench, stack: AsyncExitStack) -> Server:
    return await stack.enter_async_context(serving(bench.cluster.kubeconfig, bench.directory))


async def _change_of_leader(bench: Bench, watch: Watch, leader: Server) -> float:
    """Seconds from its end to the pod that the next one made in place of the one that we take away."""
    while not watch.created.empty():
        watch.created.get_nowait()
    (key,) = watch.informer.store
    began = time.perf_counter()
    os.kill(leader.pid, signal.SIGKILL)
    await bench.client.delete(paths.pod(NamespacedName(*key)), grace_seconds=0)
    async with asyncio.timeout(PATIENCE):
        seen, _ = await watch.created.get()
    await watch.reaches(1, timeout=PATIENCE)
    return seen - began
