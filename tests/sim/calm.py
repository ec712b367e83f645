"""After the storm: all troubles end, the world comes to rest in bounded time, and then everything must be as wanted.

What is wanted is worked out anew here, from the rules' text and the cluster's truth, not by the code under test.
"""

from __future__ import annotations

from typing import Any

from app.broker.sessions import Status
from app.core import schedules
from app.core.podspec import template_hash
from app.core.validation import validate
from app.model.agentpool import Autoscaler, PoolSpec
from app.model.meta import NamespacedName
from tests.sim.api import PODS, Object, deleting, finished, key_of, uid
from tests.sim.checks import BrokenError
from tests.sim.world import World, version_of

LATE = 90.0
"""Seconds in which all that was under way has come to its end: requests that are carried out late, streams broken."""
LOOK_EVERY = 20.0
REST = 200.0
"""Seconds for which nothing may be written once all is as wanted."""


def calm(world: World) -> None:
    """End all troubles and see the world come to rest. Raises BrokenError.

    A pool whose requests get no answer may stay so: no other waits for it.
    """
    keep_stalled = world.rng.random() < 0.5
    world.loop.do(_clear, world, keep_stalled)
    if world.leader is None:
        world.advance(30.0)
    end = world.loop.time() + bound(world)
    world.advance(LATE)
    while missing := _missing(world):
        if world.loop.time() >= end:
            raise BrokenError("the pools come to what the rules want", missing)
        world.advance(LOOK_EVERY)
    world.checks.counts["the pools come to what the rules want"] += len(world.pools())
    _rest(world)
    world.checks.scan()
    world.advance(0.0)


def bound(world: World) -> float:
    """Virtual seconds in which any world must come to rest: the sum of all that may have to be waited for."""
    limits = [pool["spec"]["autoscaler"] for pool in world.pools()] or [{}]
    patience = max(limit.get("killUnknownAfterSecond", 0) + limit.get("joinTimeoutSecond", 0) for limit in limits)
    decay = max(limit.get("idleDecaySecond", 0) for limit in limits) * (len(world.api.all(PODS)) + 2)
    return float(1500 + 2 * patience + decay)


def _clear(world: World, keep_stalled: bool) -> None:
    world.weather.trouble = world.start_failures = world.kubelet.trouble = 0.0
    world.kubelet.nodes_vanish = False
    if not keep_stalled:
        world.weather.stalled = set()
    world.api.refusals.clear()
    for namespace in ("a", "b"):
        world.set_quota(namespace, None)
    for replica in world.replicas:
        replica.sim.stuck_until = dict.fromkeys(replica.sim.stuck_until, 0.0)
    for pool in world.pools():
        if not deleting(pool):
            spec = {**pool["spec"], "schedules": []}
            if isinstance(validate(pool["metadata"]["name"], spec), list):
                limits = pool["spec"]["autoscaler"]
                spec["autoscaler"] = {**limits, "maxIdle": limits["minIdle"]}
            if spec["template"]["spec"]["containers"][0]["image"] == "bad" and world.rng.random() < 0.5:
                spec["template"] = {**spec["template"], "spec": {"containers": [{"name": "agent", "image": "good"}]}}
            world.edit_pool(pool, spec)
    for agent in world.agents.values():
        agent.deaf = False
        for starting in agent.sessions.values():
            starting.stubborn = False
    for session_agent, key in world.sessions():
        session = session_agent.sessions[key]
        if session.asked_to_end:
            session_agent.end(key, session)
    world.kubelet.free()


def _missing(world: World) -> str:
    """What is not yet as wanted; empty when all is."""
    for pool in world.pools():
        if NamespacedName(*key_of(pool)) in world.weather.stalled:
            continue
        if deleting(pool):
            return f"pool {key_of(pool)} is still there"
        if what := _unwanted(world, pool):
            return f"{key_of(pool)}: {what}"
    pools = {NamespacedName(*key_of(pool)) for pool in world.pools()}
    registry = world.leader.registry if world.leader else None
    for session in registry._life.table if registry else ():
        if session.pool not in pools:
            return f"session {session.id} waits for pool {session.pool}, which is gone"
        if session.status == Status.STATUS_PENDING:
            return f"session {session.id} has not started yet"
    return ""


class Count:
    """A pool's agents as they really are."""

    def __init__(self, world: World, pool: Object) -> None:
        self.pods = world.api.pods_of(uid(pool))
        self.alive = [pod for pod in self.pods if not deleting(pod) and not finished(pod)]
        self.agents = [agent for pod in self.alive if (agent := world.agents.get(uid(pod))) and world.firm(agent)]
        self.size = len(self.alive)
        self.free = sum(max(0, agent.slots - len(agent.sessions)) for agent in self.agents)
        self.idle_agents = [agent for agent in self.agents if not agent.sessions]
        key, registry = NamespacedName(*key_of(pool)), world.leader and world.leader.registry
        self.queued = sum(
            session.pool == key and session.status == Status.STATUS_QUEUEING
            for session in (registry._life.table if registry else ())
        )


def _unwanted(world: World, pool: Object) -> str:
    spec = validate(pool["metadata"]["name"], pool["spec"])
    if not isinstance(spec, PoolSpec):
        return "; ".join(map(str, spec))
    seen, limits = Count(world, pool), _limits(world, pool, spec)
    if _is_bad(pool):
        content = not _against(seen, limits) and not _outdated(world, spec, seen, pool)
        told = _reported_bad(pool) or content  # what is not needed is not tried
        return "" if told else "its template is bad, and its status does not say so"
    if len(seen.pods) != len(seen.alive):
        return "pods that ended are still there"
    if len(seen.agents) != seen.size:
        return f"{seen.size - len(seen.agents)} agents are not connected"
    if "lastError" in (pool.get("status") or {}):
        return "the status still tells an error"
    return _against(seen, limits) or _outdated(world, spec, seen, pool) or _status_lies(pool, seen, spec)


def _limits(world: World, pool: Object, spec: PoolSpec) -> Autoscaler:
    limits = spec.autoscaler
    if spec.schedules:
        limits = schedules.look(spec.schedules, now=world.wall()).apply(limits)
    return limits


def _against(seen: Count, limits: Autoscaler) -> str:
    """What rules 2 to 4 would still do."""
    idle, slots = seen.free - seen.queued, limits.default_slots_per_agent
    if limits.target_hit_rate is not None:
        slack = limits.max_idle  # minIdle is somewhere between the two
        return "" if seen.size >= limits.max_replicas or idle >= limits.min_idle else f"{idle} idle slots (≤ {slack})"
    if (idle < limits.min_idle or seen.size < limits.min_replicas) and seen.size < limits.max_replicas:
        return f"{idle} idle slots and {seen.size} agents are too few for {limits}"
    if seen.queued and seen.free:
        return f"{seen.queued} sessions wait beside {seen.free} free slots"
    if seen.size > limits.max_replicas and seen.idle_agents:
        return f"{seen.size} agents, some idle, are more than {limits.max_replicas}"
    spare = [agent for agent in seen.idle_agents if idle - agent.slots >= limits.min_idle]
    if spare and seen.size > limits.min_replicas:
        return f"{idle} idle slots, one agent of {slots} could go, for {limits}"
    return ""


def _is_bad(pool: Object) -> bool:
    return bool(pool["spec"]["template"]["spec"]["containers"][0]["image"] == "bad")


def _given_up(pool: Object) -> bool:
    """The spec's template did not work in time, for whatever reason, and the pool says so."""
    rollout = (pool.get("status") or {}).get("rollout", {})
    return bool(rollout.get("failedTemplateHash") == template_hash(pool["spec"]["template"]))


def _reported_bad(pool: Object) -> bool:
    status = pool.get("status") or {}
    return "lastError" in status or "failedTemplateHash" in status.get("rollout", {}) or status.get("replicas") == 0


def _outdated(world: World, spec: PoolSpec, seen: Count, pool: Object) -> str:
    if spec.rollout.strategy == "OnDelete":
        return ""
    new = template_hash(pool["spec"]["template"])
    if _given_up(pool):
        new = pool["status"]["rollout"]["stableTemplateHash"]
    old = [
        agent.name
        for pod in seen.alive
        if version_of(pod) != new and (agent := world.agents.get(uid(pod))) and not agent.sessions
    ]
    return f"idle agents {old} are of an older template" if old else ""


def _status_lies(pool: Object, seen: Count, spec: PoolSpec) -> str:
    """Where the status does not say what is."""
    status = pool.get("status") or {}
    wanted: dict[str, Any] = {
        "observedGeneration": pool["metadata"]["generation"],
        "replicas": seen.size,
        "readyReplicas": len(seen.agents),
        "idleReplicas": len(seen.idle_agents),
        "runningReplicas": len(seen.agents) - len(seen.idle_agents),
        "pendingReplicas": 0,
        "unknownReplicas": 0,
        "slots": sum(agent.slots for agent in seen.agents),
        "idleSlots": seen.free,
        "pendingSessions": seen.queued,
    }
    lies = {name: (status.get(name), value) for name, value in wanted.items() if status.get(name) != value}
    conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
    told = {name: conditions.get(name, {}).get("status") for name in ("Ready", "Reconciling", "Stalled")}
    stalled = "True" if _given_up(pool) else "False"
    if not lies and told == {"Ready": "True", "Reconciling": "False", "Stalled": stalled}:
        return ""
    return f"the status says {lies or told} (said, is)"


def _rest(world: World) -> None:
    """A world at rest stays at rest: nothing is created, deleted or written while nothing happens."""
    begin, made = world.loop.time(), _creations(world)
    world.advance(REST)
    for pool in world.pools():
        steady = "targetHitRate" not in pool["spec"]["autoscaler"] and not _is_bad(pool)
        if steady and NamespacedName(*key_of(pool)) not in world.weather.stalled:
            late = world.checks.hinted.get(uid(pool), 0.0) - REST / 2  # hints take their time
            last = max(late, world.checks.writes.get(uid(pool), 0.0))
            world.checks.check("a world at rest stays at rest", last <= begin, f"{key_of(pool)} written at {last}")
    attempts = _creations(world) - made
    world.checks.check(
        "failing creations back off", attempts <= 12 * max(1, len(world.pools())), f"{attempts} in {REST}"
    )
    world.advance(0.0)


def _creations(world: World) -> int:
    """Asked for so far by pools whose requests are answered."""
    answered = [pool for pool in world.pools() if NamespacedName(*key_of(pool)) not in world.weather.stalled]
    return sum(world.checks.creations[uid(pool)] for pool in answered)
