"""The network between server, API server and agents is cut, slow, or loses what it should carry."""

from __future__ import annotations

import asyncio
import random

from aiohttp import web

from tests.faults.proxy import Forward, abort, is_watch
from tests.faults.scene import World, scene
from tests.kube.faults import failure

PARTITION = 6.0
"""Seconds: longer than a Lease."""


async def api_partition(world: World) -> None:
    """The only server and the API server cannot hear each other for longer than a Lease; right 40 s after that."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy) as server:
        await it.grown("parted", server)
        proxy.flowing.clear()
        await it.change("parted", minReplicas=12)
        await server.logged("no longer leading")
        await asyncio.sleep(PARTITION)  # the fault itself
        proxy.heal()
        proxy.cut()
        await it.right("parted", 12, within=40, runningReplicas=2)


async def leader_partition(world: World) -> None:
    """Only the leader is cut off from the API server: it stops, another goes on, and it comes back as a follower."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy) as first:
        await it.grown("alone", first)
        async with it.server() as second:
            await second.logged("waiting for the lease")
            proxy.flowing.clear()
            await it.change("alone", minReplicas=12)
            await first.logged("no longer leading")
            await it.right("alone", 12, within=40, runningReplicas=2)
            proxy.heal()
            proxy.cut()
            await it.change("alone", minReplicas=0, maxIdle=2)
            await it.right("alone", 4, within=30, runningReplicas=2)


async def agents_partition(world: World) -> None:
    """No agent reaches the server: first nothing passes and then connections break, twice; right 40 s after that."""
    async with scene(world) as it, it.server() as server:
        await it.grown("unheard", server)
        for silence in (PARTITION, 0.5):
            it.door.flowing.clear()
            await asyncio.sleep(silence)  # the fault itself
            it.door.open = False
            it.door.cut()
            unknown = lambda: it.audit.status("unheard")["unknownReplicas"] == 4  # noqa: E731
            await it.audit.until(unknown, within=30, what="all agents are missed")
            await it.change("unheard", minReplicas=12 if silence == PARTITION else 0, maxIdle=2)
            it.door.open = True
            size = 12 if silence == PARTITION else 4
            await it.right("unheard", size, within=40, runningReplicas=2)
            if size == 12:
                await it.change("unheard", minReplicas=4)
                await it.right("unheard", 4, within=30, runningReplicas=2)


async def latency(world: World) -> None:
    """Each answer of the API server comes 0.5 s late, and each line of a watch; right in 40 s."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy, settings="") as server:
        await it.grown("late", server)

        async def late(request: web.Request, forward: Forward) -> web.StreamResponse:
            await asyncio.sleep(0.5)
            return await forward()

        proxy.fault, proxy.delay = late, 0.5
        proxy.cut()
        await it.change("late", minReplicas=12)
        await it.right("late", 12, within=40, runningReplicas=2)
        await it.change("late", minReplicas=0, maxIdle=2)
        await it.right("late", 4, within=40, runningReplicas=2)


async def errors(world: World) -> None:
    """One request in five fails: 500, 503, 429 with Retry-After, an answer that is lost; right 60 s after a change."""
    chance = random.Random(6)
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy, settings="") as server:
        await it.grown("failing", server)

        async def failing(request: web.Request, forward: Forward) -> web.StreamResponse:
            if is_watch(request) or chance.random() > 0.2:
                return await forward()
            kind = chance.choice(("500", "503", "429", "lost"))
            if kind == "lost":
                await forward()
                abort(request)
            if kind == "429":
                return failure(429, "TooManyRequests", "slow down", headers={"Retry-After": "1"})
            return failure(int(kind), "InternalError" if kind == "500" else "ServiceUnavailable", "the test says so")

        proxy.fault = failing
        await it.change("failing", minReplicas=12)
        await it.right("failing", 12, within=60, runningReplicas=2)
        await it.change("failing", minReplicas=0, maxIdle=2)
        await it.right("failing", 4, within=60, runningReplicas=2)


async def joins_twice(world: World) -> None:
    """Each agent has a double that joins under its name: it counts once, and its session goes on; right in 30 s."""
    async with scene(world) as it, it.server() as server:
        await it.grown("doubled", server)
        for name in list(it.audit.pods):
            it.crew.again(name)
        await it.change("doubled", minReplicas=8)
        await it.right("doubled", 8, within=30, runningReplicas=2)
