"""What can be done to the world. A move is plain numbers, so that it can be kept, repeated, left out and shrunk."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from app.broker.refusal import Reason, RefusedError
from app.kube.errors import ApiError
from app.proto import velda_pb2
from tests.sim.agents import NOTICED, SimAgent
from tests.sim.api import PODS, WATCHED, Object, deleting, finished, key_of, uid
from tests.sim.world import INSTANCE, NAMES, World, template

STUCK_MOST = 60.0


class Move(NamedTuple):
    """Wait so many seconds, then do it; ``a`` and ``b`` choose what it is done to, and how."""

    wait: float
    name: str
    a: int
    b: int


Action = Callable[[World, int, int], None]
MOVES: dict[str, Action] = {}
WEIGHTS: dict[str, int] = {}


def move(weight: int) -> Callable[[Action], Action]:
    def enter(action: Action) -> Action:
        MOVES[action.__name__] = action
        WEIGHTS[action.__name__] = weight
        return action

    return enter


def perform(world: World, what: Move) -> None:
    """Raises BrokenError."""
    world.advance(what.wait)
    world.loop.do(MOVES[what.name], world, what.a, what.b)
    world.step(what.name)
    world.advance(0.0)


def draw(rng: random.Random) -> Move:
    wait = rng.choice((0.0, 0.0, 0.001, 0.01, 0.1, 0.5, rng.uniform(0, 5), rng.uniform(0, 5), rng.uniform(5, 60)))
    if rng.random() < 0.02:
        wait = rng.uniform(60, 400)
    (name,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
    return Move(round(wait, 3), name, rng.randrange(1 << 16), rng.randrange(1 << 16))


def _pick(items: list[Any], index: int) -> Any:
    return items[index % len(items)] if items else None


# Pools.


def draw_spec(rng: random.Random) -> dict[str, Any]:
    big = rng.random() < 0.03
    most = rng.choice((0, 1, 2, 3, 5, 8, 12)) if not big else 80
    least_idle = rng.choice((0, 1, 1, 2, 3)) if not big else 70
    autoscaler: dict[str, Any] = {
        "maxReplicas": most,
        "minReplicas": min(most, rng.choice((0, 0, 0, 1, 2, 4))),
        "minIdle": least_idle,
        "maxIdle": least_idle + rng.choice((0, 1, 2, 5)),
        "idleDecaySecond": rng.choice((0, 5, 60)),
        "killUnknownAfterSecond": rng.choice((10, 60, 120)),
        "defaultSlotsPerAgent": rng.choice((1, 1, 1, 2, 4)),
        "joinTimeoutSecond": rng.choice((30, 120)),
    }
    if rng.random() < 0.03:
        autoscaler["targetHitRate"] = 0.9
    return {"autoscaler": autoscaler, "template": template(rng.randrange(3)), "rollout": draw_rollout(rng)}


def draw_rollout(rng: random.Random) -> dict[str, Any]:
    surge, unavailable = rng.choice(((0, 1), (1, 0), (1, 1), ("25%", "25%"), ("100%", 0), (0, "100%")))
    return {
        "strategy": rng.choice(("RollingUpdate", "RollingUpdate", "RollingUpdate", "OnDelete")),
        "maxSurge": surge,
        "maxUnavailable": unavailable,
        "progressDeadlineSecond": rng.choice((60, 200)),
    }


@move(6)
def create_pool(world: World, a: int, b: int) -> None:
    spec = draw_spec(random.Random(b))
    world.make_pool(NAMES[a % len(NAMES)], spec)


@move(2)
def delete_pool(world: World, a: int, b: int) -> None:
    if pool := _pick(world.pools(), a):
        world.delete_pool(pool)


@move(8)
def edit_limits(world: World, a: int, b: int) -> None:
    pool, rng = _pick(world.pools(), a), random.Random(b)
    if pool:
        fresh = draw_spec(rng)["autoscaler"]
        chosen = rng.sample(sorted(fresh), rng.randrange(1, 4))
        limits = {**pool["spec"]["autoscaler"], **{name: fresh[name] for name in chosen}}
        limits["minReplicas"] = min(limits["minReplicas"], limits["maxReplicas"])
        if rng.random() < 0.9:  # else it may be one that the webhook would not have let in
            limits["maxIdle"] = max(limits["minIdle"], limits["maxIdle"])
        world.edit_pool(pool, {**pool["spec"], "autoscaler": limits})


@move(4)
def edit_template(world: World, a: int, b: int) -> None:
    pool, rng = _pick(world.pools(), a), random.Random(b)
    if pool:
        new = template(rng.randrange(3), bad=rng.random() < 0.2)
        world.edit_pool(pool, {**pool["spec"], "template": new, "rollout": draw_rollout(rng)})


@move(1)
def edit_schedules(world: World, a: int, b: int) -> None:
    pool, rng = _pick(world.pools(), a), random.Random(b)
    if pool:
        schedule = {
            "name": "s",
            "schedule": rng.choice(("0 * * * *", "*/20 * * * *")),
            "durationSecond": rng.choice((60, 300, 900)),
            rng.choice(("minIdle", "minReplicas")): rng.randrange(4),
        }
        world.edit_pool(pool, {**pool["spec"], "schedules": [schedule] if rng.random() < 0.7 else []})


# Sessions.


@move(30)
def request(world: World, a: int, b: int) -> None:
    rng = random.Random(b)
    world.request(
        NAMES[a % len(NAMES)],
        priority=rng.choice((0, 0, 1, 5)),
        service=rng.choice(("", "", "", "s", "t")),
        force=rng.random() < 0.3,
    )


@move(5)
def request_many(world: World, a: int, b: int) -> None:
    """At once, so that they take all that is idle."""
    for number in range(2 + b % 7):
        request(world, a, b + number)


@move(8)
def cancel(world: World, a: int, b: int) -> None:
    waiting = [call for call in world.calls.values() if call.outcome is None]
    if call := _pick(waiting, a):
        world.cancel(call)


@move(18)
def end_session(world: World, a: int, b: int) -> None:
    if found := _pick(world.sessions(), a):
        agent, key = found
        agent.end(key, agent.sessions[key])


@move(2)
def end_all_sessions(world: World, a: int, b: int) -> None:
    for agent, key in world.sessions():
        agent.end(key, agent.sessions[key])


@move(4)
def kill_session(world: World, a: int, b: int) -> None:
    leader = world.leader
    found = leader.registry.list(instance_id=INSTANCE) if leader and leader.registry else []
    if leader and leader.registry and (session := _pick(found, a)):
        by_service = bool(b & 1 and session.service_name)
        request = velda_pb2.KillSessionRequest(
            instance_id=INSTANCE,
            session_id="" if by_service else session.session_id,
            service_name=session.service_name if by_service else "",
            force=bool(b & 2),
        )
        try:
            leader.registry.kill(request)
        except RefusedError as refused:
            if refused.reason is not Reason.RETURNING:
                raise


@move(1)
def starts_fail(world: World, a: int, b: int) -> None:
    world.start_failures = (0.0, 0.1, 0.5)[a % 3]


# Agents.


def _agents(world: World) -> list[SimAgent]:
    return [agent for agent in world.agents.values() if not agent.dead and not agent.stopping]


@move(8)
def break_stream(world: World, a: int, b: int) -> None:
    agent, rng = _pick([agent for agent in _agents(world) if agent.conn], a), random.Random(b)
    if agent and agent.conn:
        agent.conn.lose(
            agent_after=rng.choice((0.01, 0.5, 5.0, NOTICED, 200.0)),
            server_after=rng.choice((0.01, 0.5, NOTICED, 95.0)),
        )


@move(2)
def break_all_streams(world: World, a: int, b: int) -> None:
    for i, _ in enumerate(_agents(world)):
        break_stream(world, i, b + i)


@move(2)
def join_twice(world: World, a: int, b: int) -> None:
    if agent := _pick(_agents(world), a):
        agent.dial()


@move(2)
def half_close(world: World, a: int, b: int) -> None:
    """The process is told to stop, and its container starts it again."""
    agent = _pick(_agents(world), a)
    if agent:
        for key, session in list(agent.sessions.items()):
            agent.end(key, session) if session.answer else agent.forget(key)
        if agent.conn:
            agent.conn.half_close()


@move(2)
def restart_agent(world: World, a: int, b: int) -> None:
    if agent := _pick(_agents(world), a):
        agent.restart()


@move(1)
def deafen(world: World, a: int, b: int) -> None:
    if agent := _pick(_agents(world), a):
        agent.deaf = not agent.deaf


# Pods and nodes.


def _pods(world: World) -> list[Object]:
    return [pod for pod in world.api.all(PODS) if not finished(pod)]


@move(3)
def evict(world: World, a: int, b: int) -> None:
    pod = _pick(_pods(world), a)
    if pod:
        phase, reason = (("Failed", "Evicted"), ("Failed", "Error"), ("Succeeded", ""))[b % 3]
        world.kubelet.finish(uid(pod), key_of(pod), phase, reason)


@move(3)
def delete_pod(world: World, a: int, b: int) -> None:
    """By somebody else; sometimes at once."""
    if pod := _pick(_pods(world), a):
        world.api.delete(PODS, key_of(pod), grace=0 if b % 3 == 0 else 30)


@move(1)
def delete_all_pods(world: World, a: int, b: int) -> None:
    for pod in _pods(world):
        world.api.delete(PODS, key_of(pod))


@move(1)
def orphan(world: World, a: int, b: int) -> None:
    """Someone takes a pod's owner away, or makes a pod that looks like a worker."""
    pod = _pick(_pods(world), a)
    if pod and not deleting(pod):
        world.checks.strays.add(uid(pod))
        meta = {name: value for name, value in pod["metadata"].items() if name != "ownerReferences"}
        world.api.write(PODS, pod, metadata=meta)


@move(2)
def pods_fare_badly(world: World, a: int, b: int) -> None:
    world.kubelet.trouble = (0.0, 0.0, 0.2, 0.8)[a % 4]


@move(2)
def nodes_come(world: World, a: int, b: int) -> None:
    for pod_uid in list(world.kubelet.held):
        pods = [pod for pod in world.api.all(PODS) if uid(pod) == pod_uid]
        world.kubelet.release(pod_uid, key_of(pods[0])) if pods else world.kubelet.held.pop(pod_uid)


@move(1)
def nodes_vanish(world: World, a: int, b: int) -> None:
    world.kubelet.nodes_vanish = a % 3 == 0
    if pod := _pick([pod for pod in _pods(world) if pod["spec"].get("nodeName")], b):
        world.kubelet.vanish(pod)


@move(1)
def nodes_given_up(world: World, a: int, b: int) -> None:
    world.kubelet.free()


# The API server.


@move(3)
def api_trouble(world: World, a: int, b: int) -> None:
    world.weather.trouble = (0.0, 0.0, 0.05, 0.3, 0.9)[a % 5]


@move(1)
def api_stalls(world: World, a: int, b: int) -> None:
    """All that concerns one pool's pods gets no answer."""
    world.weather.stalled = {NAMES[a % len(NAMES)]} if b % 2 else set()


@move(4)
def watch_lags(world: World, a: int, b: int) -> None:
    plural = WATCHED[a % len(WATCHED)]
    for replica in world.replicas:
        replica.sim.stuck_until[plural] = world.loop.time() + random.Random(b).choice((0.2, 2.0, 20.0, STUCK_MOST))


@move(4)
def watch_breaks(world: World, a: int, b: int) -> None:
    plural = WATCHED[a % len(WATCHED)]
    if b % 2:
        world.api.compact(plural)
    for replica in world.replicas:
        replica.sim.cut(plural)


@move(3)
def quota(world: World, a: int, b: int) -> None:
    world.set_quota(NAMES[a % len(NAMES)].namespace, (None, None, 0, 2, 4, 8)[b % 6])


@move(2)
def admission_refuses(world: World, a: int, b: int) -> None:
    namespace = NAMES[a % len(NAMES)].namespace
    world.api.refusals.pop(namespace, None)
    if b % 3 == 0:
        world.api.refusals[namespace] = ApiError(403, "Forbidden", "admission webhook says no")


# Replicas.


@move(2)
def fail_over(world: World, a: int, b: int) -> None:
    """The leader ends, cleanly or not, and another leads after a while: one that was there before, or a new one."""
    if world.leader is None:
        return
    standby = len(world.replicas) > 1
    world.end_term(crash=b % 2 == 0)
    if not standby:
        world.start_replica()
    world.loop.later((0.05, 2.0, 17.0)[a % 3], world.lead)


@move(1)
def start_standby(world: World, a: int, b: int) -> None:
    if world.leader is not None and len(world.replicas) < 2:
        world.start_replica()
