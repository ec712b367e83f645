"""A pool in a world with a virtual clock: plans are carried out at once, agents join when the test says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.core.agents import AgentView, PoolAgents
from app.core.breaker import CLOSED, Breaker, created, failed
from app.core.diagnosis import Cause, Problem
from app.core.reconcile import Memory, Observed, Plan, reconcile, remember
from app.model.agentpool import AgentPool, Autoscaler, FieldError, PoolSpec, Rollout
from app.model.meta import FINALIZER, POOL_LABEL, TEMPLATE_HASH_LABEL, ObjectMeta
from app.model.pod import ContainerState, ContainerStateWaiting, ContainerStatus, Pod, PodCondition, PodStatus

EPOCH = 1_800_000_000.0
TEMPLATE: dict[str, Any] = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "agent"}]}}


@dataclass
class Agent:
    slots: int
    sessions: list[str] = field(default_factory=list)
    connected: bool = True
    since: float = 0.0


class World:
    """One pool, its pods and agents. ``settle()`` reconciles until nothing is left to do at this instant."""

    def __init__(self, **limits: Any) -> None:
        numbers = {"max_replicas": 5, "min_idle": 1, "max_idle": 2} | limits
        self.now = 1000.0
        self.spec: PoolSpec | list[FieldError] = PoolSpec(
            autoscaler=Autoscaler(**numbers), template=TEMPLATE, template_hash="v1"
        )
        self.revisions: dict[str, dict[str, Any]] = {}
        meta = ObjectMeta(name="p", namespace="n", uid="pool-uid", generation=1, finalizers=(FINALIZER,))
        self.pool = AgentPool(metadata=meta)
        self.pods: dict[str, Pod] = {}
        self.orphans: dict[str, Pod] = {}
        self.agents: dict[str, Agent] = {}
        self.queue: list[tuple[int, int, str]] = []
        self.memory: Memory | None = None
        self.breaker: Breaker = CLOSED
        self.refusal = ""
        self.attempts = 0
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.closed = False
        self.events: list[str] = []
        self.plan: Plan | None = None
        self.requested = 0
        self._serial = 0

    # What the test does.

    def join(self, *names: str, slots: int | None = None) -> None:
        assert isinstance(self.spec, PoolSpec)
        default = self.spec.autoscaler.default_slots_per_agent
        for name in names or [name for name in self.pods if name not in self.agents]:
            self._phase(name, "Running")
            self.agents[name] = Agent(slots=slots or default, since=self.now)
        self._dispatch()
        self.settle()

    def request(self, *sessions: str, priority: int = 0) -> None:
        for session in sessions:
            self._serial += 1
            self.requested += 1
            self.queue.append((-priority, self._serial, session))
        self._dispatch()
        self.settle()

    def cancel(self, session: str) -> None:
        self.queue = [entry for entry in self.queue if entry[2] != session]
        self.settle()

    def end(self, *sessions: str) -> None:
        for agent in self.agents.values():
            if any(session in agent.sessions for session in sessions):
                agent.sessions = [session for session in agent.sessions if session not in sessions]
                agent.since = self.now
        self._dispatch()
        self.settle()

    def lose(self, name: str) -> None:
        self.agents[name].connected, self.agents[name].since = False, self.now
        self.settle()

    def rejoin(self, name: str) -> None:
        self.agents[name].connected, self.agents[name].since = True, self.now
        self.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass, waking up whenever the plan asked to."""
        end = self.now + seconds
        while self.plan and self.plan.next_at is not None and self.plan.next_at <= end:
            self.now = max(self.now, self.plan.next_at)
            self.settle()
        self.now = end
        self.settle()

    def edit(self, **limits: Any) -> None:
        assert isinstance(self.spec, PoolSpec)
        autoscaler = msgspec.structs.replace(self.spec.autoscaler, **limits)
        self._respec(autoscaler=autoscaler)

    def retemplate(self, template_hash: str, **rollout: Any) -> None:
        self._respec(template_hash=template_hash, rollout=Rollout(**rollout))

    def _respec(self, **fields: Any) -> None:
        assert isinstance(self.spec, PoolSpec)
        self.spec = msgspec.structs.replace(self.spec, **fields)
        meta = msgspec.structs.replace(self.pool.metadata, generation=self.pool.metadata.generation + 1)
        self.pool = msgspec.structs.replace(self.pool, metadata=meta)
        self.settle()

    def restart(self) -> None:
        """The process starts anew: it remembers nothing, and no agent has joined it yet."""
        self.memory, self.breaker = None, CLOSED
        self.lost_agents, self.agents = self.agents, {}
        self.settle()

    def return_from_restart(self, *names: str) -> None:
        for name in names:
            self.agents[name] = self.lost_agents[name]
            self.agents[name].since = self.now
        self.settle()

    def delete(self) -> None:
        meta = msgspec.structs.replace(self.pool.metadata, deletion_timestamp=datetime.fromtimestamp(EPOCH, UTC))
        self.pool = msgspec.structs.replace(self.pool, metadata=meta)
        self.settle()

    def finish(self, name: str, reason: str = "") -> None:
        """The pod ends by itself."""
        self._phase(name, "Failed", reason)
        self.settle()

    def orphan(self, name: str, phase: str) -> None:
        """Someone leaves a pod with our label and no owner."""
        labels = {POOL_LABEL: "p", TEMPLATE_HASH_LABEL: "v1", "app": "a"}
        meta = ObjectMeta(name=name, namespace="n", uid=f"uid-{name}", labels=labels)
        self.orphans[name] = Pod(metadata=meta, status=PodStatus(phase=phase))
        self.settle()

    def wait_for(self, name: str, reason: str) -> None:
        """The pod's container waits (ImagePullBackOff …)."""
        state = ContainerState(waiting=ContainerStateWaiting(reason=reason, message=f"because of {reason}"))
        status = PodStatus(container_statuses=(ContainerStatus(name="agent", state=state),))
        self.pods[name] = msgspec.structs.replace(self.pods[name], status=status)
        self.settle()

    def hold(self, name: str, reason: str) -> None:
        """The scheduler has no place for the pod (Unschedulable), or may not look for one yet (SchedulingGated)."""
        condition = PodCondition(type="PodScheduled", status="False", reason=reason, message="0/3 nodes")
        self.pods[name] = msgspec.structs.replace(self.pods[name], status=PodStatus(conditions=(condition,)))
        self.settle()

    # What the test sees.

    @property
    def counts(self) -> tuple[int, int, int]:
        """Agents pending, idle, running."""
        idle = sum(not agent.sessions for name, agent in self.agents.items() if name in self.pods)
        return len(set(self.pods) - set(self.agents)), idle, len(self.agents) - idle

    @property
    def status(self) -> dict[str, Any]:
        status = self.pool.status
        assert isinstance(status, dict)
        return status

    def condition(self, kind: str) -> str:
        return next(str(c["status"]) for c in self.status["conditions"] if c["type"] == kind)

    @property
    def versions(self) -> list[str]:
        """Template hashes of the pods."""
        return sorted(pod.metadata.label(TEMPLATE_HASH_LABEL) for pod in self.pods.values())

    def pods_of(self, template_hash: str) -> list[str]:
        return [n for n, pod in self.pods.items() if pod.metadata.label(TEMPLATE_HASH_LABEL) == template_hash]

    def where(self, session: str) -> str | None:
        return next((name for name, agent in self.agents.items() if session in agent.sessions), None)

    # How plans are carried out.

    def settle(self) -> None:
        for _ in range(200):
            if not self.step():
                return
        raise AssertionError("the plan never comes to rest")

    def step(self) -> bool:
        """One reconcile, carried out; True when it did something."""
        seen = Observed(
            pool=self.pool,
            spec=self.spec,
            pods=tuple(self.pods.values()),
            orphans=tuple(self.orphans.values()),
            agents=PoolAgents(
                agents={
                    name: AgentView(name, agent.connected, agent.slots, len(agent.sessions), agent.since)
                    for name, agent in self.agents.items()
                },
                pending_sessions=len(self.queue),
                requested_sessions=self.requested,
            ),
            creating=(),
            deleting=(),
            breaker=self.breaker,
            now=self.now,
            wall=EPOCH + self.now,
            chance=0.5,
            revisions=self.revisions,
        )
        if self.memory is None:
            self.memory = remember(seen.pool, seen.pods, seen.agents, now=self.now)
        plan = self.plan = reconcile(seen, self.memory)
        self.memory, self.breaker = plan.memory, plan.breaker
        return self._carry_out(plan)

    def _carry_out(self, plan: Plan) -> bool:
        self.closed = self.closed or plan.close
        if plan.status is not None:
            self.pool = msgspec.structs.replace(self.pool, status=dict(plan.status))
        if plan.finalizers is not None:
            meta = msgspec.structs.replace(self.pool.metadata, finalizers=plan.finalizers)
            self.pool = msgspec.structs.replace(self.pool, metadata=meta)
        self.events += [event.reason for event in plan.events]
        if plan.version and plan.keep_revision:
            self.revisions[plan.version.target] = plan.version.template
        for unused in plan.drop_revisions:
            del self.revisions[unused]
        for pod in plan.adopt:
            self.pods[pod.metadata.name] = self.orphans.pop(pod.metadata.name)
        for removal in plan.removals:
            self._remove(removal.worker.name)
        for _ in range(plan.create):
            self._create()
        return bool(plan.adopt or plan.removals or plan.create or plan.status is not None)

    def _create(self) -> None:
        self.attempts += 1
        if self.refusal:
            self._fail(Problem(Cause.QUOTA, "Forbidden", self.refusal))
            return
        self.breaker = created(self.breaker)
        self._serial += 1
        name = f"p-{self._serial:04}"
        born = datetime.fromtimestamp(EPOCH + self.now, UTC)
        assert self.plan
        assert self.plan.version
        labels = {POOL_LABEL: "p", TEMPLATE_HASH_LABEL: self.plan.version.target}
        meta = ObjectMeta(name=name, namespace="n", uid=f"uid-{name}", labels=labels, creation_timestamp=born)
        self.pods[name] = Pod(metadata=meta)
        self.created.append(name)

    def _fail(self, problem: Problem) -> None:
        assert self.plan
        assert self.plan.version
        target, wall = self.plan.version.target, EPOCH + self.now
        self.breaker = failed(self.breaker, problem, template_hash=target, now=self.now, wall=wall, jitter=0.5)

    def _remove(self, name: str) -> None:
        del self.pods[name]
        self.agents.pop(name, None)
        self.deleted.append(name)

    def _phase(self, name: str, phase: str, reason: str = "") -> None:
        self.pods[name] = msgspec.structs.replace(self.pods[name], status=PodStatus(phase=phase, reason=reason))

    def _dispatch(self) -> None:
        self.queue.sort()
        for agent in self.agents.values():
            while self.queue and agent.connected and len(agent.sessions) < agent.slots:
                agent.sessions.append(self.queue.pop(0)[2])
                agent.since = self.now
