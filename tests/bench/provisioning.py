"""A thousand pods: our pool beside a ReplicaSet and beside the plainest loop, on one API server, taking turns."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple

import msgspec

from app.controller.actuator import UNWARNED
from app.kube import paths
from app.kube.client import METADATA
from tests.bench.bench import Bench, pool, template
from tests.bench.process import Process, find, serving
from tests.support.process import bound, free_port

RAW_IN_FLIGHT = 128
"""With 32 the loop is slower, with 256 no faster."""


class Round(NamedTuple):
    seconds: float
    cpu: float
    peak: int


async def measure(bench: Bench, *, pods: int = 1000, rounds: int = 12) -> None:
    """Lines ``provisioning`` and ``raw``."""
    manager, api_server = (find(name, under=bench.directory) for name in ("kube-controller-manager", "kube-apiserver"))
    async with (
        bench.account() as (kubeconfig, namespace),
        serving(kubeconfig, bench.directory, environment={"POD_NAMESPACE": namespace}) as server,
    ):
        await server.logged("leading")

        async def ours(namespace: str) -> None:
            body = pool("bench", minReplicas=pods, maxReplicas=pods)
            await bench.client.create(paths.agentpools(namespace), body)

        async def replica_set(namespace: str) -> None:
            spec = {"replicas": pods, "selector": {"matchLabels": {"bench": "yes"}}, "template": template()}
            body = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "bench"}, "spec": spec}
            await bench.client.create(f"/apis/apps/v1/namespaces/{namespace}/replicasets", body)

        async def loop(namespace: str) -> None:
            await _raw(bench, namespace, pods)

        results: dict[str, list[Round]] = {"ours": [], "ReplicaSet": [], "raw": []}
        sides: list[tuple[str, Callable[[str], Coroutine[Any, Any, None]], Process | None]] = [
            ("ours", ours, server),
            ("ReplicaSet", replica_set, manager),
            ("raw", loop, None),
        ]
        # In every order: a round costs more after some than after others.
        for order in itertools.islice(itertools.cycle(itertools.permutations(sides)), rounds):
            for name, start, process in order:
                # The last round's pods and events are collected, its namespace emptied, while this one would begin.
                await bench.idle(api_server, manager)
                results[name].append(await _round(bench, name, start, process, pods=pods))
        await bench.idle(api_server, manager)
        async with _default_limit(bench, manager) as slow:
            default = await _round(bench, "ReplicaSet at the default limit", replica_set, slow, pods=pods)
    _lines(bench, results, default, pods)


@contextlib.asynccontextmanager
async def _default_limit(bench: Bench, manager: Process) -> AsyncIterator[Process]:
    """In place of the stage's manager, which stands still meanwhile, one with the client limit that it has by default.

    It runs no other controllers than that of ReplicaSets and the one that namespaces need.
    """
    port, ours = free_port(), ("--kube-api-qps", "--kube-api-burst", "--secure-port")
    command = [word for word in manager.command() if not word.startswith(ours)]
    with (bench.directory / "slow-manager.log").open("wb") as log:
        os.kill(manager.pid, signal.SIGSTOP)
        process = await asyncio.create_subprocess_exec(
            *bound(*command, f"--secure-port={port}", "--controllers=replicaset-controller,serviceaccount-controller"),
            stdout=log,
            stderr=log,
        )
        try:
            yield Process(process.pid)
        finally:
            process.terminate()
            await process.wait()
            os.kill(manager.pid, signal.SIGCONT)


def _lines(bench: Bench, results: dict[str, list[Round]], default: Round, pods: int) -> None:
    seconds = {name: statistics.median(r.seconds for r in rounds) for name, rounds in results.items()}
    cpu = {name: statistics.median(r.cpu for r in rounds) for name, rounds in results.items()}
    peak = max(r.peak for r in results["ours"])
    ratio, cpu_ratio = seconds["ours"] / seconds["ReplicaSet"], cpu["ours"] / max(cpu["ReplicaSet"], 0.01)
    bench.line(
        "provisioning",
        ok=ratio <= 1.0 and cpu_ratio <= 0.7 and peak <= pods and seconds["ours"] / default.seconds <= 0.15,
        unit="s",
        pods=pods,
        ours=seconds["ours"],
        peer=seconds["ReplicaSet"],
        peer_is="ReplicaSet, client limit lifted to 1000/s",
        ratio=ratio,
        limit=1.0,
        cpu_seconds=cpu["ours"],
        peer_cpu_seconds=cpu["ReplicaSet"],
        cpu_ratio=cpu_ratio,
        cpu_limit=0.7,
        cpu_is="from apply until all pods run",
        peak=peak,
        default_limit_seconds=default.seconds,
        default_limit_ratio=seconds["ours"] / default.seconds,
        limit_default_limit_ratio=0.15,
    )
    share = seconds["raw"] / seconds["ours"]
    bench.line(
        "raw",
        ok=share >= 0.8,
        unit="pods/s",
        ours=pods / seconds["ours"],
        peer=pods / seconds["raw"],
        ratio=share,
        limit=0.8,
    )


async def _round(
    bench: Bench, name: str, start: Callable[[str], Coroutine[Any, Any, None]], process: Process | None, *, pods: int
) -> Round:
    namespace = await bench.namespace()
    async with bench.watching(namespace) as watch:
        before, began = process.cpu_seconds() if process else 0.0, time.perf_counter()
        starting = asyncio.create_task(start(namespace))
        await watch.reaches(pods, timeout=180)
        seconds = time.perf_counter() - began
        await starting
        await watch.reaches(pods, timeout=180, running=True)
        await asyncio.sleep(1.0)  # one pod too many would show, and the last events are handled
        spent = (process.cpu_seconds() if process else 0.0) - before
        peak = watch.peak
    bench.say(f"{name}: {pods} pods in {seconds:.2f} s; {spent:.2f} CPU seconds until all run")
    await bench.remove(namespace)
    return Round(seconds, spent, peak)


async def _raw(bench: Bench, namespace: str, pods: int) -> None:
    """The same pods with nothing around them: encoded before, sent by a fixed number of workers."""
    made: dict[str, Any] = template()
    bodies = iter(
        [
            msgspec.json.encode(
                {"apiVersion": "v1", "kind": "Pod", **made, "metadata": {**made["metadata"], "name": f"raw-{i}"}}
            )
            for i in range(pods)
        ]
    )

    async def worker() -> None:
        for body in bodies:
            await bench.client.create(paths.pods(namespace), body, params=UNWARNED, accept=METADATA)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(RAW_IN_FLIGHT):
            tasks.create_task(worker())
