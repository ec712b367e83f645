"""The machine and the cluster around the server are short of something, too busy, or take something away."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from tests.faults.proxy import Noise
from tests.faults.scene import World, scene
from tests.support.api import Change
from tests.webhook.questions import pool as some_pool
from tests.webhook.questions import review

SECRET = "velda-apiserver-tls"
ROOM = 400 << 20
"""Bytes of data that the server may have: what the figure ``steady`` allows it at 1,000 pools."""


async def secret_deleted(world: World) -> None:
    """The webhooks' Secret is deleted: another is there in 30 s, and webhooks and pools go on."""
    async with scene(world) as it, it.server() as server, aiohttp.ClientSession() as http:
        await it.grown("unsecret", server)
        path = f"/api/v1/namespaces/{it.namespace}/secrets/{SECRET}"
        before = (await it.api.get(path))["metadata"]["uid"]
        renewed = asyncio.create_task(_another(it.api.watch(path.rpartition("/")[0]), before))
        await it.api.delete(path, uid=before)
        async with asyncio.timeout(30):
            await renewed
        assert (await http.post(f"{server.https}/validate", data=review(some_pool()), ssl=_anyone())).status == 200
        await it.change("unsecret", minReplicas=12)
        await it.right("unsecret", 12, within=30, runningReplicas=2)


async def admissions(world: World) -> None:
    """1,000 admission requests with 100 always in flight: each answered, while a pool grows; right in 60 s."""
    connector = aiohttp.TCPConnector(ssl=_anyone())
    async with scene(world) as it, it.server() as server, aiohttp.ClientSession(connector=connector) as http:
        await it.grown("asked", server)
        asks = iter(range(1000))
        body = review(some_pool())
        statuses: set[tuple[int, bool]] = set()

        async def ask() -> None:
            for _ in asks:
                answer = await http.post(f"{server.https}/validate", data=body)
                statuses.add((answer.status, "allowed" in await answer.text()))

        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(ask())
            await it.change("asked", minReplicas=12)
            await it.right("asked", 12, within=60, runningReplicas=2)
        assert statuses == {(200, True)}


async def events(world: World) -> None:
    """A pool and its pods change as fast as the API server lets eight writers; it still grows in 60 s."""
    async with scene(world) as it, it.server() as server:
        await it.grown("noisy", server)
        pods = f"/api/v1/namespaces/{it.namespace}/pods/"
        pools = f"/apis/velda.io/v1/namespaces/{it.namespace}/agentpools/noisy"
        written = 0

        async def write(path: str) -> None:
            nonlocal written
            while True:
                written += 1
                await it.api.patch(path, {"metadata": {"annotations": {"noise": str(written)}}})

        async with asyncio.TaskGroup() as group:
            paths = [*(pods + name for name in it.audit.pods), pools]
            writers = [group.create_task(write(path)) for path in (paths * 2)[:8]]
            await it.audit.until(lambda: written > 200, within=60, what="noise")
            await it.change("noisy", minReplicas=12)
            await it.right("noisy", 12, within=60, runningReplicas=2)
            for writer in writers:
                writer.cancel()


async def flood(world: World, *, rate: int = 2000, at_least: int = 0) -> None:
    """The pods of a pool change 2,000 times a second, says the API server; it still grows in 60 s."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy) as server:
        await it.grown("flooded", server)
        proxy.fault = noise = Noise(list(it.audit.pods.values()), rate=rate)
        proxy.cut()  # the watches begin anew, with it
        while not noise.sent:  # noqa: ASYNC110  a count has no event
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await it.change("flooded", minReplicas=12)
        await it.right("flooded", 12, within=60, runningReplicas=2)
        told = noise.sent / (time.monotonic() - began)
        assert told >= at_least, f"{told:.0f} events a second were read"


async def clock_jumps(world: World) -> None:
    """The leader's wall clock is a day ahead, then a day behind, then right: nothing goes, and it grows in 30 s."""
    async with scene(world) as it, it.server(module="tests.faults.hurried") as first:
        await it.grown("timed", first)
        async with it.server() as second:
            await second.logged("waiting for the lease")
            for jump, size in ((signal.SIGUSR1, 6), (signal.SIGUSR2, 9), (signal.SIGUSR1, 12)):
                os.kill(first.pid, jump)
                await it.change("timed", minReplicas=size)
                await it.right("timed", size, within=30, runningReplicas=2)


async def disk_full(world: World) -> None:
    """No line of the log can be written, from the start on; it works in 30 s."""
    async with scene(world) as it, it.server(output=Path("/dev/full")) as server:
        await it.grown("full", server)
        await it.change("full", minReplicas=12)
        await it.right("full", 12, within=30, runningReplicas=2)


async def memory(world: World, *, pools: int = 300) -> None:
    """The server has 400 MB and no more, and 300 pools appear and go at once: it lives, and is right in 60 s."""
    async with scene(world) as it, it.server(settings="") as server:
        await it.grown("bounded", server)
        resource.prlimit(server.pid, resource.RLIMIT_DATA, (ROOM, ROOM))
        for number in range(pools):
            await it.create(f"many-{number}", maxReplicas=1, minReplicas=0)
        await it.change("bounded", minReplicas=12)
        await it.right("bounded", 12, within=60, runningReplicas=2)
        assert server.resident_bytes() < ROOM


async def _another(changes: AsyncIterator[Change], uid: str) -> None:
    """Until there is a Secret of that name with another uid, and something in it."""
    async for gone, item in changes:
        meta = item["metadata"]
        if meta["name"] == SECRET and not gone and meta["uid"] != uid and item.get("data"):
            return


def _anyone() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
