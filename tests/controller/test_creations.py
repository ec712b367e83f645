"""However many agents a pool wants and however large its template is, a bounded number is asked for at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

from app.controller.creations import MOST_ASKED, MOST_BYTES, Creations
from app.controller.parts import Parts, PoolState, Subject
from app.core.fields import INT32_MAX
from app.core.reconcile import Memory, Plan
from app.core.rollout import Version
from app.model.agentpool import AgentPool, Autoscaler, PoolSpec
from app.model.meta import NamespacedName, ObjectMeta

KEY = NamespacedName("n", "p")


class Bench:
    """Stands for the actuator and the rest; ``asked`` are the bodies by name."""

    def __init__(self, *, padding: int = 0) -> None:
        self.asked: dict[str, bytes] = {}
        self.name = "velda-config"
        parts = {"actuator": self, "queue": self, "config_maps": self, "proof": None, "trace": self.trace}
        self._creations = Creations(cast("Parts", type("Fake", (), parts)))
        template = {"spec": {"containers": [{"name": "agent", "command": ["x" * padding]}]}}
        self._version = Version("v1", template)
        self.state = PoolState("u", Memory(started_at=0.0))
        limits = Autoscaler(max_replicas=INT32_MAX, min_idle=INT32_MAX, max_idle=INT32_MAX)
        self.state.spec = PoolSpec(autoscaler=limits, template=template)
        self._subject = Subject(KEY, AgentPool(metadata=ObjectMeta(name="p", namespace="n")), self.state)
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        self._tasks.add(asyncio.create_task(work, name=name))

    async def ensure(self, _: str) -> None:
        return

    def trace(self, *_: Any) -> None:
        return

    def create(self, pod: NamespacedName, body: bytes, **_: Any) -> asyncio.Future[None]:
        self.asked[pod.name] = body
        return asyncio.get_running_loop().create_future()

    async def start(self, count: int = INT32_MAX) -> int:
        """How many are asked for now."""
        before = len(self.asked)
        plan = Plan(memory=self.state.memory, breaker=self.state.breaker, version=self._version, create=count)
        self._creations.start(self._subject, plan)
        await asyncio.sleep(0)
        return len(self.asked) - before

    def see(self, count: int) -> None:
        """The watch shows so many of them."""
        for name in list(self.state.expectations.creating(now=0.0))[:count]:
            self.state.expectations.observe(name, "", gone=False)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_two_billion_agents_are_asked_for_little_by_little() -> None:
    bench = Bench()
    assert await bench.start() == MOST_ASKED
    assert await bench.start() == 0
    bench.see(7)
    assert await bench.start() == 7
    bench.see(MOST_ASKED)
    assert await bench.start(3) == 3
    await bench.stop()


async def test_of_a_large_template_fewer_are_asked_for() -> None:
    bench = Bench(padding=1 << 20)
    assert 1 < await bench.start() < MOST_BYTES >> 20
    assert await bench.start() == 0
    assert sum(map(len, bench.asked.values())) <= MOST_BYTES
    await bench.stop()


async def test_of_the_largest_one_at_a_time() -> None:
    bench = Bench(padding=MOST_BYTES)
    assert await bench.start() == 1
    assert await bench.start() == 0
    bench.see(1)
    assert await bench.start() == 1
    await bench.stop()
