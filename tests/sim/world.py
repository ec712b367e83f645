"""A cluster with its users: the API server, nodes, agents, clients, and the replicas of the server under test.

All chance comes from one generator and all time from one virtual loop: the same seed and the same moves make the same
world. ``move`` does one thing to it, ``advance`` lets time pass; both raise BrokenError when an invariant is broken.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from app.broker.refusal import Reason, RefusedError
from app.broker.sessions import SessionKey
from app.model.meta import TEMPLATE_HASH_LABEL, NamespacedName
from app.proto import velda_pb2
from tests.sim import seams
from tests.sim.agents import Connection, SimAgent
from tests.sim.api import EPOCH, PODS, POOLS, QUOTAS, REVISIONS, Api, Object, controller, deleting, key_of, uid
from tests.sim.checks import Checks
from tests.sim.client import Weather
from tests.sim.kubelet import Kubelet
from tests.sim.loop import VirtualLoop
from tests.sim.replica import Replica

NAMES = (NamespacedName("a", "p"), NamespacedName("a", "q"), NamespacedName("b", "p"), NamespacedName("b", "r"))
INSTANCE = 1
RETRY = 1.0
"""Seconds after which a client that was sent away by a leader that stops asks again."""

ANSWERS_LOST = 5
"""Of so many answered requests one is repeated to the next leader, as if its answer had been lost."""

Outcome = velda_pb2.ExecutionStatus | RefusedError


class Call:
    """One RequestSession of a client that asks again when its server goes away."""

    def __init__(self, request: velda_pb2.SessionRequest) -> None:
        self.request = request
        self.key = SessionKey(request.instance_id, request.session_id)
        self.replica: Replica | None = None
        self.outcome: Outcome | None = None
        self.leave: Callable[[], None] = lambda: None
        self.asked_at = 0.0


class World:
    """Enter it as a context: it replaces chance and clock in app for as long."""

    def __init__(self, seed: object) -> None:
        self.rng = random.Random(str(seed))
        self.loop = VirtualLoop()
        self.steps = 0
        self.weather = Weather(self.rng)
        self.checks = Checks(self)
        self.api = Api(now=self.loop.time, on_pod=self._on_pod)
        self.kubelet = Kubelet(self)
        self.agents: dict[str, SimAgent] = {}
        """By pod uid, until the pod is gone."""
        self.streams: dict[asyncio.Task[None], Connection] = {}
        self.running: dict[SessionKey, list[SimAgent]] = {}
        """Where each session really runs."""
        self.doubled: dict[SessionKey, list[SimAgent]] = {}
        """Those that run on several agents."""
        self.calls: dict[str, Call] = {}
        self.deleted_at: dict[str, float] = {}
        self.going_since: dict[str, float] = {}
        self.start_failures = 0.0
        self.most_reported = 4
        """More slots than that no agent says it has."""
        self.wall_offset = 0.0
        self.replicas: list[Replica] = []
        self.leader: Replica | None = None
        self._sessions = 0
        self._seams = seams.replaced(
            rng=self.rng, wall=self.wall, on_exception=self._surprised, named=self.checks.name_chosen
        )

    def __enter__(self) -> World:
        self._seams.__enter__()
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(lambda _, context: self._surprised(str(context)))
        self.api.wake = self._news
        self.api.collect = self._collect
        self.start_replica()
        self.lead()
        return self

    def __exit__(self, *_: object) -> None:
        for replica in self.replicas:
            replica.end(crash=True)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.advance(1.0)
        self.loop.close()
        asyncio.set_event_loop(None)
        self._seams.__exit__(None, None, None)

    def wall(self) -> float:
        return EPOCH + self.loop.time() + self.wall_offset

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.advance(seconds)
        if self.checks.broken:
            raise self.checks.broken

    def step(self, what: str) -> None:
        """Something happened; to be called when it has."""
        self.steps += 1
        self.checks.stepped()

    def _surprised(self, event: str) -> None:
        self.checks.fail("no exception that nobody expects", event)

    def _news(self, plural: str) -> None:
        for replica in self.replicas:
            replica.sim.news(plural)

    # Objects.

    def _on_pod(self, what: str, pod: Object) -> None:
        if what == "added":
            self.checks.pod_added(pod)
        elif what == "deleting":
            self.going_since[uid(pod)] = self.loop.time()
        self.kubelet.on_pod(what, pod)

    def _collect(self, pool: Object) -> None:
        self.checks.pool_gone(pool)
        self.loop.later(self.rng.uniform(0.1, 3.0), self._sweep, uid(pool))

    def _sweep(self, pool_uid: str) -> None:
        for plural in (PODS, REVISIONS):
            for item in self.api.all(plural):
                if controller(item) == pool_uid and not deleting(item):
                    self.api.delete(plural, key_of(item))

    def pools(self) -> list[Object]:
        return sorted(self.api.all(POOLS), key=key_of)

    def make_pool(self, key: NamespacedName, spec: dict[str, Any]) -> None:
        if self.api.find(POOLS, key) is None:
            made = self.api.create(POOLS, {"metadata": {"name": key.name, "namespace": key.namespace}, "spec": spec})
            self.checks.spec_written(made)

    def edit_pool(self, pool: Object, spec: dict[str, Any]) -> None:
        if spec != pool["spec"]:
            self.checks.spec_written(self.api.edit_spec(key_of(pool), spec))

    def delete_pool(self, pool: Object) -> None:
        self.deleted_at.setdefault(uid(pool), self.loop.time())
        self.api.delete(POOLS, key_of(pool))

    def set_quota(self, namespace: str, most: int | None) -> None:
        found = self.api.find(QUOTAS, (namespace, "quota"))
        if most is None:
            if found:
                self.api.delete(QUOTAS, key_of(found))
            return
        spec, used = {"hard": {"pods": str(most)}}, {"used": {"pods": str(self.api.counted(namespace))}}
        if found:
            self.api.write(QUOTAS, found, spec=spec, status=used)
        else:
            meta = {"name": "quota", "namespace": namespace}
            self.api.create(QUOTAS, {"metadata": meta, "spec": spec, "status": used})

    def slots_of(self, pod: Object) -> int:
        """What the agent of a new pod says it has: mostly what its pool expects."""
        pool = self.api.find(POOLS, (pod["metadata"]["namespace"], pod["metadata"]["labels"]["velda.io/pool"]))
        expected = pool["spec"]["autoscaler"].get("defaultSlotsPerAgent", 1) if pool else 1
        return int(expected) if self.rng.random() < 0.95 else self.rng.randrange(1, self.most_reported + 1)

    # Replicas.

    def start_replica(self) -> None:
        """A new process; it follows the API server and waits for its turn to lead."""
        self.replicas.append(Replica(self))

    def lead(self) -> None:
        """The youngest process leads from now on."""
        self.leader = self.replicas[-1]
        self.leader.lead()

    def end_term(self, *, crash: bool) -> None:
        """The leader is no more; agents notice sooner or later, clients at once."""
        old, self.leader = self.leader, None
        if old is None:
            return
        old.end(crash=crash)
        self.replicas.remove(old)
        for agent in list(self.agents.values()):
            if agent.conn and agent.conn.replica is old:
                if crash:
                    agent.conn.task.cancel()
                    agent.conn.lose(agent_after=self.rng.choice((0.01, 1.0, 40.0)), server_after=0.0)
                else:
                    self.loop.later(5.0, agent.conn.task.cancel)
        for number, call in enumerate(self.calls.values()):
            if call.replica is old and (call.outcome is None or number % ANSWERS_LOST == 0):
                call.replica = call.outcome = None
                self.loop.later(RETRY, self._ask, call)

    # Sessions.

    def request(self, pool: NamespacedName, *, priority: int, service: str, force: bool) -> None:
        self._sessions += 1
        session_id = f"s{self._sessions}"
        request = velda_pb2.SessionRequest(
            session_id=session_id,
            instance_id=INSTANCE,
            pool=str(pool),
            priority=priority,
            service_name=service,
            force_new_session=force,
        )
        call = self.calls[session_id] = Call(request)
        call.asked_at = self.loop.time()
        self._ask(call)

    def _ask(self, call: Call) -> None:
        if call.outcome is not None or call.replica is not None:
            return
        leader = self.leader
        if leader is None or leader.registry is None:
            self.loop.later(RETRY, self._ask, call)
            return
        call.replica = leader
        request = velda_pb2.SessionRequest()
        request.CopyFrom(call.request)
        try:
            call.leave = leader.registry.request(request, lambda outcome: self._outcome(call, leader, outcome))
        except RefusedError as refused:
            self._outcome(call, leader, refused)

    def _outcome(self, call: Call, asked: Replica, outcome: Outcome) -> None:
        if call.replica is not asked:
            return  # its server is gone, and it asks the next
        self.checks.check("one answer for each request", call.outcome is None, f"{call.key} is answered again")
        if isinstance(outcome, RefusedError) and outcome.reason is Reason.STOPPING:
            call.replica = None
            self.loop.later(RETRY, self._ask, call)
            return
        call.outcome = outcome
        if isinstance(outcome, velda_pb2.ExecutionStatus):
            if not call.request.service_name or outcome.session_id == call.request.session_id:
                key = SessionKey(INSTANCE, outcome.session_id)
                ever = key in self.running or outcome.status == velda_pb2.ExecutionStatus.STATUS_STALE
                self.checks.check("what is said to run has started", ever, str(key))
        else:
            self.calls.pop(call.request.session_id, None)

    def cancel(self, call: Call) -> None:
        self.calls.pop(call.request.session_id, None)
        if call.outcome is None:
            call.outcome = RefusedError(Reason.SESSION_ENDED, "the client left")
            if call.replica and call.replica is self.leader:
                leave, call.replica = call.leave, None
                leave()

    def firm(self, agent: SimAgent) -> bool:
        """It is connected to the present leader, and both ends are right to believe it."""
        conn = agent.conn
        whole = conn is not None and conn.joined and not conn.broken
        return whole and conn is not None and conn.replica is self.leader and not agent.stopping

    def runs(self, key: SessionKey, agent: SimAgent) -> None:
        agent.sessions[key].up_since = self.loop.time()
        where = self.running.setdefault(key, [])
        self.checks.started(key, where)
        where.append(agent)
        if len(where) > 1:
            self.doubled[key] = where

    def runs_no_more(self, key: SessionKey, agent: SimAgent) -> None:
        where = self.running[key]
        where.remove(agent)
        if len(where) < 2:
            self.doubled.pop(key, None)

    def sessions(self) -> list[tuple[SimAgent, SessionKey]]:
        """All that really run."""
        return [(agent, key) for key, agents in self.running.items() for agent in agents]


def template(version: int, *, bad: bool = False) -> dict[str, Any]:
    image = "bad" if bad else f"agent:{version}"
    return {
        "metadata": {"labels": {"app": "agent"}},
        "spec": {"containers": [{"name": "agent", "image": image, "env": [{"name": "V", "value": str(version)}]}]},
    }


def version_of(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get(TEMPLATE_HASH_LABEL, ""))
