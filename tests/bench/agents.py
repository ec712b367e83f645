"""Agents of ours for the pods of a pool, all in this process, straight to the broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from app.agent.agent import Agent, Identity
from app.model.meta import POOL_LABEL
from tests.bench.bench import Watch
from tests.support.agents import LoopRunner


class Agents:
    """One for each pod of the watch from when it runs; ``joined`` counts those that a server has taken."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.joined = 0
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def reach(self, count: int, *, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            while self.joined < count:
                self._changed.clear()
                await self._changed.wait()

    async def follow(self, watch: Watch) -> None:
        while True:
            _, meta = await watch.started.get()
            pool = f"{meta.namespace}/{meta.label(POOL_LABEL)}"
            agent = Agent(
                Identity(agent_id=meta.name, pool=pool, hostname=meta.name), target=self._target, runner=LoopRunner()
            )
            self._tasks.add(asyncio.create_task(agent.run()))
            self._tasks.add(asyncio.create_task(self._count(agent)))

    async def _count(self, agent: Agent) -> None:
        await agent.joined.wait()
        self.joined += 1
        self._changed.set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def agents(watch: Watch, target: str) -> AsyncIterator[Agents]:
    crew = Agents(target)
    following = asyncio.create_task(crew.follow(watch))
    try:
        yield crew
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await crew.stop()
