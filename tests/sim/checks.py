"""What must hold whatever happens: checked at every step, at every request, and at every dispatch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from app.broker.registry import Registry
from app.broker.returning import REJOIN_TIME
from app.broker.sessions import Session, SessionKey, Status
from app.core.dispatch import session_rank
from app.core.reconcile import CLOSING_GRACE
from app.core.validation import validate
from app.core.workers import STUCK_AFTER
from app.model.agentpool import PoolSpec
from app.model.meta import NamespacedName
from tests.sim.api import GRACE, PODS, POOLS, Key, Object, controller, deleting, finished, key_of, label, uid

if TYPE_CHECKING:
    from tests.sim.agents import SimAgent
    from tests.sim.replica import Replica
    from tests.sim.world import World

TOLERANCE = 10.0
"""Seconds in which messages under way must have put straight what two ends believe."""
SCAN_EVERY = 50
"""Steps between two looks at everything."""


class BrokenError(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


class Checks:
    """``counts`` says how often each invariant was looked at; the first that is broken is kept and raised later."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.counts: Counter[str] = Counter()
        self.broken: BrokenError | None = None
        self.creations: Counter[str] = Counter()
        """Pods asked for, by the uid of their pool."""
        self.writes: dict[str, float] = {}
        """When a pool was last acted upon (its pods or its status), by uid."""
        self.hinted: dict[str, float] = {}
        """When something was last written on a pool's pods, by uid."""
        self.strays: set[str] = set()
        """Uids of pods that others made, that were asked for by a term that was over by then, or that were made again:
        gone before they were seen, while a repeated request was already on its way."""
        self.shown: set[tuple[Replica, str]] = set()
        """Names of pods that each replica's watch has shown."""
        self._made: set[Key] = set()
        self._limits: dict[str, list[tuple[int, int]]] = {}
        """By pool uid: resourceVersion and maxReplicas of each spec."""
        self._patience: dict[str, int] = {}
        """By pool uid: the shortest killUnknownAfterSecond that it ever had."""
        self._chosen: dict[str, dict[NamespacedName, int]] = {}
        """By the suffix of a pod's name: the versions of the pools in the cache when it was chosen."""
        self._makers: dict[Key, Replica] = {}
        self._calls: dict[tuple[Replica, str, object], str] = {}
        """Creations and deletions of each replica: asked, failed or done."""

    def fail(self, invariant: str, what: str) -> None:
        if self.broken is None:
            self.broken = BrokenError(invariant, f"{what} (at {self.world.loop.time():.3f})")

    def check(self, invariant: str, holds: bool, what: str) -> None:
        self.counts[invariant] += 1
        if not holds:
            self.fail(invariant, what)

    # Requests.

    def spec_written(self, pool: Object) -> None:
        spec = validate(pool["metadata"]["name"], pool["spec"])
        if isinstance(spec, PoolSpec):
            limits, version = spec.autoscaler, int(pool["metadata"]["resourceVersion"])
            self._limits.setdefault(uid(pool), []).append((version, limits.max_replicas))
            patience = limits.kill_unknown_after_second
            self._patience[uid(pool)] = min(patience, self._patience.get(uid(pool), patience))

    def name_chosen(self, suffix: str) -> None:
        if self.world.leader:
            cache = self.world.leader.cache
            pools = {key: cache.pool(key) for key in cache.pool_keys()}
            self._chosen[suffix] = {key: int(pool.metadata.resource_version) for key, pool in pools.items() if pool}

    def asked(self, replica: Replica, verb: str, plural: str, key: Key, body: Any) -> None:
        if plural == POOLS and verb == "apply":
            self.writes[body["metadata"]["uid"]] = self.world.loop.time()
        if verb == "carry out" and plural == PODS:
            pod = self.world.api.find(PODS, key)
            if pod and uid(pod) == body and replica is self.world.leader and not finished(pod) and not deleting(pod):
                self._removal(replica, NamespacedName(key[0], label(pod)), pod)
            return
        if plural == PODS and verb == "patch" and (pod := self.world.api.find(PODS, key)):
            self.hinted[controller(pod)] = self.world.loop.time()
        about = _about(replica, verb, plural, key, body)
        if about is None:
            return
        before = self._calls.get(about)
        self.check("nothing is asked for twice", before in (None, "failed"), f"{verb} {key} again, it is {before}")
        self._calls[about] = "asked"
        if verb == "create":
            seen = (replica, key[1]) in self.shown
            self.check("a pod that was seen is not asked for again", not seen, key[1])
            self._makers[key] = replica
            self.creations[controller(body)] += 1
            self.writes[controller(body)] = self.world.loop.time()
        elif verb == "delete":
            self._deletion(replica, key, body, again=before is not None)

    def answered(self, replica: Replica, verb: str, plural: str, key: Key, body: Any, *, failed: bool) -> None:
        if about := _about(replica, verb, plural, key, body):
            self._calls[about] = "failed" if failed else "done"

    def _deletion(self, replica: Replica, key: Key, pod_uid: str | None, *, again: bool) -> None:
        self.check("deletions name the uid", pod_uid is not None, f"deletion of {key}")
        pod = self.world.api.find(PODS, key)
        if pod is None or uid(pod) != pod_uid:
            return
        pool_key = NamespacedName(key[0], label(pod))
        known = replica.cache.pool(pool_key)
        owner = known.metadata.uid if known else ""
        own = again or owner in self.world.api.owners.get(uid(pod), ())
        self.check("only own pods are deleted", own, f"{key} belongs to {controller(pod)}")
        self.writes[owner] = self.world.loop.time()
        if not finished(pod) and not deleting(pod):
            self._removal(replica, pool_key, pod)

    def _removal(self, replica: Replica, pool_key: NamespacedName, pod: Object) -> None:
        """Who is removed while alive must be free, or have been unheard of for long enough."""
        now, name = self.world.loop.time(), pod["metadata"]["name"]
        pool = self.world.api.find(POOLS, (pool_key.namespace, pool_key.name))
        truth = self.world.agents.get(uid(pod))
        works = truth is not None and not truth.dead and any(s.answer for s in truth.sessions.values())
        view = replica.registry.pool_agents(pool_key).agents.get(name) if replica.registry else None
        if pool is None or uid(pool) != controller(pod) or deleting(pool):
            since = self.world.deleted_at.get(controller(pod), now)
            busy = view is not None and view.connected and view.sessions > 0
            self.check("sessions of a deleted pool have their grace", not busy or now >= since + CLOSING_GRACE, name)
            return
        patience = self._patience.get(uid(pool), 0)
        if view is None:
            heard = replica.leading_since + patience
            self.check("unknown agents may come back", not works or now >= heard, f"{name} runs sessions")
        elif view.connected:
            self.check("no running agent is removed", view.sessions == 0, f"{name} has {view.sessions} sessions")

    # The API server's truth.

    def pod_added(self, pod: Object) -> None:
        key, pool_uid = key_of(pod), controller(pod)
        maker = self._makers.get(key)
        again = key in self._made
        self._made.add(key)
        if maker is None or maker is not self.world.leader or again:
            self.strays.add(uid(pod))
            return
        pool = self.world.api.find(POOLS, (key[0], label(pod)))
        self.check("the finalizer goes last", pool is not None and uid(pool) == pool_uid, f"{key} made after its pool")
        seen = self._chosen.get(key[1].rpartition("-")[2], {}).get(NamespacedName(key[0], label(pod)), 0)
        limits = self._limits.get(pool_uid, [])
        first = max((i for i, (version, _) in enumerate(limits) if version <= seen), default=0)
        allowed = max((most for _, most in limits[first:]), default=0)
        alive = sum(self._counts(other) for other in self.world.api.pods_of(pool_uid))
        self.check("maxReplicas", alive <= allowed, f"{alive} of {allowed} in {key[0]}/{label(pod)} with {key[1]}")

    def _counts(self, pod: Object) -> bool:
        if finished(pod) or uid(pod) in self.strays:
            return False
        if not deleting(pod):
            return True
        return self.world.loop.time() < self.world.going_since.get(uid(pod), 0.0) + GRACE + STUCK_AFTER

    def pool_gone(self, pool: Object) -> None:
        left = [p["metadata"]["name"] for p in self.world.api.pods_of(uid(pool)) if uid(p) not in self.strays]
        self.check("the finalizer goes last", not left, f"{key_of(pool)} leaves {left}")

    # The broker.

    def watch(self, registry: Registry) -> None:
        """Look at each dispatch before it happens."""
        life, drain = registry._life, registry.drain
        start = life._start

        def checked(pool: Any, session: Session, agent: Any) -> None:
            mine = session_rank(priority=session.request.priority, arrival=session.arrival)
            ranks = [session_rank(priority=s.request.priority, arrival=s.arrival) for s in pool.queue]
            self.check("queue order", all(mine <= rank for rank in ranks), f"{session.id} before its turn")
            fit = agent.link is not None and not agent.draining and len(agent.sessions) < agent.slots
            self.check("sessions go to agents that can take them", fit, f"{session.id} to {agent.name}")
            start(pool, session, agent)

        def drained(key: NamespacedName, name: str) -> bool:
            view = registry.pool_agents(key).agents.get(name)
            done = drain(key, name)
            if done and view and not view.connected and not view.draining:
                self._given_up(key, name, since=view.since)
            return done

        setattr(life, "_start", checked)  # noqa: B010  mypy would not have a method assigned
        setattr(registry, "drain", drained)  # noqa: B010

    def _given_up(self, key: NamespacedName, name: str, *, since: float) -> None:
        """A lost agent is removed."""
        pool = self.world.api.find(POOLS, (key.namespace, key.name))
        pod = self.world.api.find(PODS, (key.namespace, name))
        if pool and pod and uid(pool) == controller(pod) and not deleting(pool) and not finished(pod):
            due = since + self._patience.get(uid(pool), 0) - 1e-6
            self.check("lost agents may come back", self.world.loop.time() >= due, f"{name} is lost")

    def stepped(self) -> None:
        replica = self.world.leader
        if replica and replica.registry:
            for pool in replica.registry._life.pools.values():
                starved = len(pool.queue) > 0 and len(pool.bench) > 0
                self.check("nobody waits beside a free slot", not starved, str(pool.key))
        self._doubles()
        if self.world.steps % SCAN_EVERY == 0:
            self.scan()

    def started(self, key: SessionKey, elsewhere: list[SimAgent]) -> None:
        """A session comes up, which may run on others. Those that had it before this term have their time to join."""
        leader, now = self.world.leader, self.world.loop.time()
        if leader is None or now >= leader.leading_since + REJOIN_TIME:
            return
        for agent in elsewhere:
            session = agent.sessions[key]
            there = self.world.agents.get(agent.pod_uid) is agent and not agent.stopping
            kept = there and not session.asked_to_end and session.up_since < leader.leading_since
            self.check("no session starts again in a new term", not kept, f"{key} runs on {agent.name}")

    def _doubles(self) -> None:
        self.counts["no session runs twice"] += 1
        now = self.world.loop.time()
        for key, agents in self.world.doubled.items():
            there = [agent for agent in agents if self.world.firm(agent) and not agent.sessions[key].asked_to_end]
            since = max((max(agent.sessions[key].up_since, agent.connected_since) for agent in there), default=now)
            if len(there) > 1 and now >= since + TOLERANCE:
                self.fail("no session runs twice", f"{key} on {[agent.name for agent in there]}")

    def scan(self) -> None:
        """What is known on both sides agrees."""
        leader = self.world.leader
        if leader is None or leader.registry is None:
            return
        table, now = leader.registry._life.table, self.world.loop.time()
        for agent in self.world.agents.values():
            if self.world.firm(agent) and now >= agent.connected_since + TOLERANCE:
                for key, session in agent.sessions.items():
                    if session.answer and not session.asked_to_end:
                        fresh = now < session.up_since + TOLERANCE
                        known = table.get(key)
                        mine = known is not None and known.agent is not None and known.agent.name == agent.name
                        self.check("no session is lost", fresh or mine, f"{key} runs on {agent.name}")
        for call in self.world.calls.values():
            if call.outcome is None and call.replica is leader:
                served = table.of_service(call.key.instance_id, call.request.service_name)
                self.check("no request is forgotten", bool(table.get(call.key) or served), f"{call.key} waits")
        for known_session in table:
            idle = known_session.status == Status.STATUS_QUEUEING and not known_session.waiters
            self.check("nobody's session waits", not idle, known_session.id)
        for pool in leader.registry._life.pools.values():
            for broker_agent in pool.agents.values():
                self.check(
                    "slots are not overbooked",
                    len(broker_agent.sessions) <= max(broker_agent.slots, self.world.most_reported),
                    broker_agent.name,
                )
                for known in broker_agent.sessions.values():
                    self.check(
                        "books agree",
                        known.agent is broker_agent and known.status != Status.STATUS_QUEUEING,
                        f"{known.id} on {broker_agent.name}",
                    )


def _about(replica: Replica, verb: str, plural: str, key: Key, body: Any) -> tuple[Replica, str, object] | None:
    """What a request is for, if it may be made only once."""
    if plural != PODS:
        return None
    if verb == "patch":
        meta = body["metadata"]
        adoption = "ownerReferences" in meta
        return (replica, "adopt", (meta["uid"], meta["resourceVersion"])) if adoption else None
    return replica, verb, key if verb == "create" else body
