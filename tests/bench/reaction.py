"""How fast a pool follows its sessions: from nothing to 300 agents, and from the last idle agent to the next pod."""

from __future__ import annotations

import asyncio
import time

import grpc

from app.kube import paths
from app.proto import velda_pb2, velda_pb2_grpc
from tests.bench.agents import agents
from tests.bench.bench import Bench, percentile, pool
from tests.bench.process import serving

RESTING = 1000


async def warm(bench: Bench, *, count: int = 300) -> None:
    """Line ``warm``: apply until so many agents have joined; pods on fake nodes, real agents of ours."""
    namespace = await bench.namespace()
    async with (
        serving(bench.cluster.kubeconfig, bench.directory) as server,
        bench.watching(namespace) as watch,
        agents(watch, server.broker) as crew,
    ):
        await server.logged("leading")
        began = time.perf_counter()
        await bench.client.create(paths.agentpools(namespace), pool("warm", minIdle=count))
        await watch.reaches(count, timeout=120)
        created = time.perf_counter() - began
        await watch.reaches(count, timeout=120, running=True)
        running = time.perf_counter() - began
        await crew.reach(count, timeout=120)
        seconds = time.perf_counter() - began
        await bench.remove(namespace)
    bench.line(
        "warm",
        until_created=created,
        until_running=running,
        ok=seconds <= 6.4,
        unit="s",
        agents=count,
        ours=seconds,
        limit=6.4,
        peer="agent-sandbox publishes 6.4 s",
    )


async def reaction(bench: Bench, *, samples: int = 200, resting: int = RESTING) -> None:
    """Line ``reaction``: a session takes the last idle agent; until the API server has the replacement pod."""
    namespace, others = await bench.namespace(), await bench.namespace()
    bench.say(f"{resting} pools at rest")
    for number in range(resting):
        await bench.client.create(paths.agentpools(others), pool(f"rest-{number}"))
    async with (
        serving(bench.cluster.kubeconfig, bench.directory) as server,
        bench.watching(namespace) as watch,
        agents(watch, server.broker) as crew,
        grpc.aio.insecure_channel(server.broker) as channel,
    ):
        await server.logged("leading")
        await bench.at_rest(others)
        broker = velda_pb2_grpc.BrokerServiceStub(channel)
        await bench.client.create(paths.agentpools(namespace), pool("busy", minIdle=1))
        await watch.created.get()
        times: list[float] = []
        for number in range(samples):
            await crew.reach(number + 1, timeout=60)
            await asyncio.sleep(0.05)  # the pool comes to rest before the next session
            began = time.perf_counter()
            request = velda_pb2.SessionRequest(pool=f"{namespace}/busy", instance_id=1)
            session = asyncio.ensure_future(broker.RequestSession(request, timeout=60))
            seen, _ = await asyncio.wait_for(watch.created.get(), timeout=60)
            times.append((seen - began) * 1000)
            await session
        await bench.remove(namespace)
        await bench.remove(others)
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    bench.line(
        "reaction",
        ok=p50 <= 15 and p99 <= 50,
        unit="ms",
        p50=p50,
        p99=p99,
        limit_p50=15,
        limit_p99=50,
        samples=samples,
        pools_at_rest=resting,
    )
