"""A busy afternoon for pictures: the same pools, agents and sessions each time, on a clock that stands still."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import msgspec

from app.broker.access import ANYONE
from app.model.meta import POOL_LABEL, NamespacedName
from app.model.pod import Pod
from app.proto import velda_pb2
from tests.broker.wire import WireAgent, agent
from tests.dashboard.serving import Served, dashboard
from tests.support.clock import Clock

NOW = datetime(2026, 11, 25, 14, 36, tzinfo=UTC).timestamp()
SHOWN = NamespacedName("ml-research", "gpu-a100")
"""The pool whose inside is shown."""
POOLS = [
    NamespacedName(namespace, name)
    for namespace, names in {
        "batch": "cpu-large cpu-small gpu-t4 highmem",
        "ml-research": "gpu-a100 gpu-h100 gpu-l4 notebooks cpu",
        "platform": "ci shell",
        "web": "preview shell staging",
    }.items()
    for name in names.split()
]
TROUBLES = {
    NamespacedName("batch", "gpu-t4"): ("stalled", 'Back-off pulling image "veldaio/agent:cuda-13": not found'),
    NamespacedName("ml-research", "gpu-h100"): (
        "failing",
        "exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=16, limited: 16",
    ),
    NamespacedName("web", "preview"): ("filling", ""),
}
USERS = ("ada", "grace", "edsger", "barbara")


@asynccontextmanager
async def scene() -> AsyncIterator[Served]:
    clock, chance = Clock(NOW), random.Random(7)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(dashboard(wall=clock))
        _fill(served, chance)
        _last_hour(served, clock, chance)
        await _people(served, stack)
        _age(served, chance)
        yield served


def _fill(served: Served, chance: random.Random) -> None:
    for key in (key for key in POOLS if key != SHOWN):
        state, error = TROUBLES.get(key, ("ready", ""))
        counts = {
            "runningReplicas": chance.randrange(0, 15),
            "idleReplicas": 0 if state in ("filling", "failing") else chance.randrange(1, 5),
            "pendingReplicas": {"filling": 3, "stalled": 1}.get(state, 0),
            "pendingSessions": 4 if state == "failing" else 0,
        }
        served.put(key, state=state, error=error, **counts)


def _last_hour(served: Served, clock: Clock, chance: random.Random) -> None:
    """Sessions come in waves; agents follow a little later."""
    running, idle, asked = 3, 2, 0
    for second in range(-3600, 1, 20):
        clock.now = NOW + second
        wave = 10 if -2400 < second < -1500 else 6 if second > -500 else 3
        running = max(0, min(17, running + chance.choice((-1, *[0] * 8, 1)) + (running < wave) - (running > wave)))
        idle, asked = min(4, max(0, 2 + asked)), max(0, min(3, wave - running - 3))
        queue = max(0, wave - running - 3 - idle) if second < -60 else 0
        served.put(
            SHOWN,
            runningReplicas=running,
            idleReplicas=idle,
            pendingReplicas=asked,
            pendingSessions=queue,
            slots=running + idle,
            idleSlots=idle,
        )
    agents = {"runningReplicas": 6, "idleReplicas": 2, "pendingReplicas": 1, "unknownReplicas": 1}
    served.put(SHOWN, **agents, pendingSessions=0, slots=8, idleSlots=2)


async def _people(served: Served, stack: AsyncExitStack) -> None:
    """Nine agents, one of them lost, a pod on its way; seven sessions and one that waits."""
    names = [f"gpu-a100-{random.Random(number).getrandbits(20):05x}" for number in range(9)]
    for number, name in enumerate(names):
        wire = await stack.enter_async_context(agent(served.plane, name, pool=str(SHOWN)))
        if number < 7:
            await _session(served, number, wire)
        if number == 6:
            await wire.vanish()
    await served.plane.seen(SHOWN, connected=8)
    pods = [_pod(name, node=f"gpu-node-{number % 3 + 1}") for number, name in enumerate(names)]
    for pod in (*pods, _pod("gpu-a100-xk3fb", reason="Insufficient nvidia.com/gpu")):
        served.cache.pod_changed(None, pod)


async def _session(served: Served, number: int, wire: WireAgent) -> None:
    request = velda_pb2.SessionRequest(
        session_id=f"{random.Random(number).getrandbits(48):012x}",
        instance_id=40 + number,
        pool=str(SHOWN),
        user=USERS[number % 4],
        service_name="jupyter" if number % 3 == 0 else "",
    )
    asking = asyncio.create_task(served.plane.server.clients.request_session(ANYONE, request))
    await wire.start()
    await asking


def _pod(name: str, *, node: str = "", reason: str = "") -> Pod:
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": reason}]
    manifest = {
        "metadata": {
            "name": name,
            "namespace": SHOWN.namespace,
            "labels": {POOL_LABEL: SHOWN.name},
            "creationTimestamp": datetime.fromtimestamp(NOW - 95, UTC),
        },
        "spec": {"nodeName": node},
        "status": {"phase": "Running" if node else "Pending", "conditions": conditions if reason else []},
    }
    return msgspec.convert(manifest, Pod)


def _age(served: Served, chance: random.Random) -> None:
    """As if all had been there for a while."""
    for each in served.plane.registry._life.pools[SHOWN].agents.values():
        each.since -= chance.randrange(40, 2900)
        for session in each.sessions.values():
            session.requested_at = each.since - 1
