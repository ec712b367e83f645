"""The leader dies, stands still, or does not know that it leads no more."""

from __future__ import annotations

import asyncio
import os
import signal

from aiohttp import web

from tests.faults.proxy import ApiProxy, Fault, Forward
from tests.faults.scene import STARTING, World, scene

MOVING = 30
"""Seconds until another leads and has put all right: 5 for the Lease, 15 for the last agent to join again."""


async def killed_growing(world: World) -> None:
    """kill -9 of the leader in the middle of a scale-up: a third is there, and of that it knows nothing yet."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy) as first:
        await it.led_by(first)
        async with it.server():
            await it.create("growing", maxReplicas=33, minReplicas=3)
            await it.right("growing", 3, within=STARTING)
            await it.start("growing", 3)
            interrupted(proxy, "POST", after=10)
            await it.change("growing", minReplicas=33)
            await it.audit.until(lambda: len(it.audit.pods) == 13, within=30, what="ten more pods")
            os.kill(first.pid, signal.SIGKILL)
            await it.right("growing", 33, within=MOVING, runningReplicas=3, idleReplicas=30)


async def killed_shrinking(world: World) -> None:
    """kill -9 of the leader in the middle of a scale-down, with sessions on some of the agents."""
    async with scene(world) as it, it.proxy() as proxy, it.server(proxy) as first:
        await it.led_by(first)
        async with it.server():
            await it.create("shrinking", maxReplicas=20, minReplicas=20, minIdle=2)
            await it.right("shrinking", 20, within=STARTING)
            await it.start("shrinking", 4)
            interrupted(proxy, "DELETE", after=5)
            await it.change("shrinking", minReplicas=0, maxIdle=2)
            await it.audit.until(lambda: len(it.audit.pods) == 15, within=30, what="five pods less")
            os.kill(first.pid, signal.SIGKILL)
            await it.right("shrinking", 6, within=MOVING, runningReplicas=4, idleReplicas=2)


async def stopped(world: World) -> None:
    """SIGSTOP of the leader for longer than its Lease, while there is work; then it comes back."""
    async with scene(world) as it, it.server() as first:
        await it.led_by(first)
        async with it.server() as second:
            await it.create("paused", maxReplicas=12, minReplicas=6)
            await it.right("paused", 6, within=STARTING)
            await it.start("paused", 2)
            os.kill(first.pid, signal.SIGSTOP)
            await it.change("paused", minReplicas=12)
            await it.led_by(second)
            os.kill(first.pid, signal.SIGCONT)
            await first.logged("no longer leading")
            await it.right("paused", 12, within=MOVING, runningReplicas=2)


async def both_believe(world: World) -> None:
    """The leader can do all but renew its Lease: it must have stopped when another begins, though nobody tells it."""
    async with scene(world) as it, it.proxy() as one, it.proxy() as other, it.server(one) as first:
        await it.led_by(first)
        writes: list[str] = []
        other.fault = recorded(writes, "second")
        async with it.server(other) as second:
            await it.create("claimed", maxReplicas=8, minReplicas=4, minIdle=2)
            await it.right("claimed", 4, within=STARTING)
            await it.start("claimed", 2)

            async def no_lease(request: web.Request, forward: Forward) -> web.StreamResponse:
                if "/leases" in request.path:
                    await asyncio.Event().wait()
                return await recorded(writes, "first")(request, forward)

            one.fault = no_lease
            await it.change("claimed", minReplicas=6)
            await it.led_by(second)
            await it.change("claimed", minReplicas=8)
            await it.right("claimed", 8, within=MOVING, runningReplicas=2)
        assert writes == sorted(writes), f"both wrote at the same time: {writes}"
        assert "second" in writes


def interrupted(proxy: ApiProxy, method: str, *, after: int) -> None:
    """So many requests of that method on pods are carried out, and not answered; those after them go nowhere."""
    left = after

    async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
        nonlocal left
        if request.method != method or "/pods" not in request.path:
            return await forward()
        left -= 1
        if left >= 0:
            await forward()
        await asyncio.Event().wait()
        raise AssertionError

    proxy.fault = fault


def recorded(writes: list[str], name: str) -> Fault:
    """Every pod that is made or deleted leaves the name in ``writes`` when it is done."""

    async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
        if request.method not in ("POST", "DELETE") or "/pods" not in request.path:
            return await forward()
        writes.append(name)
        return await forward()

    return fault
