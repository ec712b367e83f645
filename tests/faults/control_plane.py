"""The control plane restarts, and what it says of lists and watches is late, broken, or not there."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from tests.faults.leadership import interrupted
from tests.faults.proxy import Forward, is_watch
from tests.faults.scene import STARTING, Scene, World, scene
from tests.kube.faults import answer, failure


async def restarted(world: World, *, part: str) -> None:
    """kill -9 of a part of the control plane in the middle of a scale-up.

    30 s after it is ready again all pods are there; right 60 s after that: scheduler and nodes come back too.
    """
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy) as first:
        await it.grown("restarted", first)
        async with it.server() as second:
            await second.logged("waiting for the lease")
            interrupted(proxy, "POST", after=3)
            await it.change("restarted", minReplicas=12)
            await it.audit.until(lambda: len(it.audit.pods) == 7, within=30, what="three more pods")
            restarting = asyncio.create_task(world.plane.restart(part))
            proxy.heal()
            proxy.cut()
            await restarting
            await it.audit.until(lambda: len(it.audit.pods) == 12, within=30, what="all of the pods")
            for other in ("kube-scheduler", "kwok"):  # they forget a pod now and then; it is not they who are tested
                await world.plane.restart(other)
            await it.right("restarted", 12, within=60, runningReplicas=2)


api_restarted = partial(restarted, part="kube-apiserver")
etcd_restarted = partial(restarted, part="etcd")


async def watch_cut(world: World) -> None:
    """Watches break in the middle of a line, again and again, while pools grow and shrink; right in 30 s."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy) as server:
        await it.led_by(server)
        await it.create("cut", maxReplicas=30, minReplicas=3, minIdle=2)
        await it.right("cut", 3, within=STARTING)
        await it.start("cut", 2)
        for size in (15, 30):
            await it.change("cut", minReplicas=size)
            await it.audit.until(partial(lambda most: len(it.audit.pods) > most - 10, size), within=30, what="it grows")
            proxy.cut()
        await it.right("cut", 30, within=30, runningReplicas=2)
        await it.change("cut", minReplicas=0, maxIdle=2)
        await it.audit.until(lambda: len(it.audit.pods) < 30, within=30, what="it shrinks")
        proxy.cut()
        await it.right("cut", 4, within=30, runningReplicas=2)


async def watch_gone(world: World) -> None:
    """Each watch is answered by 410 a few times, as status and as a line of the watch; right in 30 s."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy) as server:
        await it.grown("gone", server)
        told: Counter[str] = Counter()
        enough = asyncio.Event()

        async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
            if not is_watch(request) or told[request.path] >= 4:
                return await forward()
            told[request.path] += 1
            if told[request.path] == 4:
                enough.set()
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            if told[request.path] % 2:
                return failure(410, "Expired", "too old resource version")
            return answer({"type": "ERROR", "object": status})

        proxy.fault = fault
        proxy.cut()
        await it.change("gone", minReplicas=12)
        async with asyncio.timeout(30):  # lists alone may make it right before that
            await enough.wait()
        await it.right("gone", 12, within=30, runningReplicas=2)


async def silent(world: World) -> None:
    """Watches stand and say nothing any more, which is found out after 2 s here and not 150; right in 30 s."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy, module="tests.faults.hurried") as server:
        await it.grown("silent", server)
        proxy.watching.clear()
        for size in (8, 12):
            await it.change("silent", minReplicas=size)
            await it.right("silent", size, within=30, runningReplicas=2)


async def lists_fail(world: World) -> None:
    """What a watch lost is listed: that fails, then its second page does, then it cannot be read; right in 30 s."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy) as server:
        await it.grown("listed", server)
        tries: Counter[str] = Counter()
        listed = asyncio.Event()

        async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
            if request.method != "GET" or "/leases" in request.path or "/pods/" in request.path:
                return await forward()
            if is_watch(request):
                return failure(410, "Expired") if not tries[request.path] else await forward()
            tries[request.path] += 1
            listed.set()
            return await _bad_list(tries[request.path], request, forward)

        proxy.fault = fault
        proxy.cut()
        await it.change("listed", minReplicas=12)
        await it.right("listed", 12, within=30, runningReplicas=2)
        async with asyncio.timeout(30):  # what the pool does not wait for may still back off
            while min(tries.values()) <= 4:
                listed.clear()
                await listed.wait()


async def _bad_list(number: int, request: web.Request, forward: Forward) -> web.StreamResponse:
    if number == 1:
        return failure(500, "InternalError", "etcdserver: request timed out")
    if number == 2:
        return answer({"metadata": {"resourceVersion": "1", "continue": "more"}, "items": []})
    if number == 3 or "continue" in request.query:
        return failure(410, "Expired", "the continue token has expired")
    if number == 4:
        return web.Response(body=b'{"metadata":{"resourceVersion":"99"},"items":[{"meta')
    return await forward()


async def list_empty(world: World) -> None:
    """One list of pods comes back whole, new and empty, and is wrong: nobody busy goes, none is above the most."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy) as server:
        await it.grown("emptied", server)
        lied = asyncio.Event()

        async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
            if request.method != "GET" or not request.path.endswith("/pods"):
                return await forward()
            if is_watch(request) and not lied.is_set():
                return failure(410, "Expired")
            if is_watch(request) or lied.is_set():
                return await forward()
            lied.set()
            return await _emptied(forward)

        proxy.fault = fault
        proxy.cut()
        async with asyncio.timeout(20):
            await lied.wait()
        await it.change("emptied", minReplicas=12)
        await it.right("emptied", 12, within=30, runningReplicas=2)


async def _emptied(forward: Forward) -> web.StreamResponse:
    whole = await forward()
    assert isinstance(whole, web.Response)
    assert isinstance(whole.body, bytes)
    document: dict[str, Any] = msgspec.json.decode(whole.body)
    return answer({**document, "items": []})


async def stale(world: World, *, pools: int = 25, size: int = 20, within: float = 90) -> None:
    """25 pools of 20 are filled by a leader whose watches stop on the way, and then by another whose stopped before.

    Never a pod too many, and all are there in 90 s. No agents join: it is pods that are counted.
    """
    names = [f"stale-{number}" for number in range(pools)]
    wanted, some = pools * size, pools * size * 3 // 10
    stage = scene(world, agents=False)
    async with stage as it, it.proxy() as proxy, it.proxy() as other, it.server(proxy, settings="") as first:
        await it.led_by(first)
        for name in names:
            await it.create(name, maxReplicas=size)
        async with it.server(other, settings="") as second:
            await second.logged("waiting for the lease")
            other.watching.clear()
            for name in names:
                await it.change(name, minReplicas=size)
            await it.audit.until(lambda: len(it.audit.pods) > some, within=within, what="some of the pods")
            proxy.watching.clear()
            interrupted(proxy, "POST", after=100)
            await it.audit.until(lambda: len(it.audit.pods) > some + 50, within=within, what="more of the pods")
            os.kill(first.pid, signal.SIGKILL)
            await it.audit.until(lambda: len(it.audit.pods) == wanted, within=within, what="all of the pods")
            other.heal()
            await it.audit.until(partial(_told, it, names, size), within=within, what="each status says so")
        assert not (broken := it.audit.broken_promises()), broken


def _told(it: Scene, names: list[str], size: int) -> bool:
    return all(it.audit.status(name).get("replicas") == size for name in names)
