"""A broker's surroundings made of plain values: pools, pods, a clock that a test sets, agents that remember."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.broker.agents import Strength
from app.broker.refusal import RefusedError
from app.broker.registry import Registry
from app.core import trace
from app.core.agents import AgentPod, AgentView, PoolInfo
from app.model.meta import NamespacedName
from app.proto import velda_pb2

Status = velda_pb2.ExecutionStatus.Status
CPU = NamespacedName("default", "cpu")


class Pools:
    """A PoolDirectory whose content a test writes."""

    def __init__(self, *keys: NamespacedName) -> None:
        self.info = {key: PoolInfo(key=key) for key in keys}
        self.pods: dict[tuple[NamespacedName, str], AgentPod] = {}

    def pools(self) -> list[PoolInfo]:
        return [self.info[key] for key in sorted(self.info)]

    def find_pools(self, name: str) -> list[PoolInfo]:
        return [info for info in self.pools() if name in (info.key.name, str(info.key))]

    def may_join(self, pool: NamespacedName) -> set[str]:
        return {name for (key, name), pod in self.pods.items() if key == pool and pod.ip}

    def find_pod(self, pool: NamespacedName, name: str) -> AgentPod | None:
        return self.pods.get((pool, name))

    def add_pod(self, pool: NamespacedName, name: str, *, ip: str = "127.0.0.1", **fields: Any) -> None:
        fields = {"uid": f"uid of {name}", **fields}
        self.pods[pool, name] = AgentPod(pool=pool, name=name, ip=ip, **fields)


class Agent:
    """The other end of one agent's stream."""

    def __init__(self, world: World, name: str, pool: NamespacedName) -> None:
        self.world = world
        self.name = name
        self.pool = pool
        self.received: list[velda_pb2.AgentUpdateResponse] = []
        self.closed: list[RefusedError | None] = []

    def send(self, message: velda_pb2.AgentUpdateResponse) -> None:
        copy = velda_pb2.AgentUpdateResponse()
        copy.CopyFrom(message)
        self.received.append(copy)

    def close(self, why: RefusedError | None) -> None:
        self.closed.append(why)

    def requests(self) -> list[velda_pb2.SessionRequest]:
        return [message.session_request for message in self.received if message.HasField("session_request")]

    def asked(self) -> list[str]:
        return [request.session_id for request in self.requests()]

    def kills(self) -> list[str]:
        messages = [
            message.kill_session_request for message in self.received if message.HasField("kill_session_request")
        ]
        return [message.session_id for message in messages]

    def says(self, message: velda_pb2.AgentUpdateRequest | None = None) -> None:
        self.world.registry.receive(self, message or velda_pb2.AgentUpdateRequest())

    def starts(self, session_id: str, *, success: bool = True, instance_id: int = 1) -> None:
        response = velda_pb2.SessionInitResponse(
            instance_id=instance_id, session_id=session_id, success=success, port=2222, host_key=b"key"
        )
        self.says(velda_pb2.AgentUpdateRequest(session_init_response=response))

    def ends(self, session_id: str, *, instance_id: int = 1) -> None:
        completion = velda_pb2.SessionCompletion(instance_id=instance_id, session_id=session_id)
        self.says(velda_pb2.AgentUpdateRequest(session_completion=completion))

    @property
    def view(self) -> AgentView:
        return self.world.registry.pool_agents(self.pool).agents[self.name]


class Call:
    """One RequestSession."""

    def __init__(self, registry: Registry, request: velda_pb2.SessionRequest) -> None:
        self.outcomes: list[velda_pb2.ExecutionStatus | RefusedError] = []
        self.leave: Callable[[], None] = registry.request(request, self.outcomes.append)

    @property
    def status(self) -> velda_pb2.ExecutionStatus:
        (outcome,) = self.outcomes
        assert isinstance(outcome, velda_pb2.ExecutionStatus), outcome
        return outcome

    @property
    def refusal(self) -> RefusedError:
        (outcome,) = self.outcomes
        assert isinstance(outcome, RefusedError), outcome
        return outcome


class World:
    """A registry with one pool, at second 0."""

    def __init__(self, *keys: NamespacedName) -> None:
        self.now = 0.0
        self.leads = True
        self.pools = Pools(*(keys or (CPU,)))
        self.changed: list[NamespacedName] = []
        self.records: list[trace.Record] = []
        self.new_term()

    def new_term(self) -> None:
        """Another server leads, which knows what the cluster shows and nothing more."""
        self.registry = Registry(
            self.pools,
            clock=lambda: self.now,
            on_change=self.changed.append,
            wall=lambda: 1000.0 + self.now,
            record=lambda pool, record: self.records.append(record),
            leading=lambda: self.leads,
        )

    def join(
        self,
        name: str,
        *running: velda_pb2.CurrentExecution,
        slots: int = 1,
        pool: NamespacedName = CPU,
        strength: Strength = Strength.NONE,
    ) -> Agent:
        agent = Agent(self, name, pool)
        first = velda_pb2.AgentUpdateRequest(slots=slots, current_executions=running)
        self.registry.join(pool=pool, name=name, address=f"ip of {name}", first=first, link=agent, strength=strength)
        return agent

    def request(self, session_id: str = "", *, pool: str = "cpu", instance_id: int = 1, **fields: Any) -> Call:
        request = velda_pb2.SessionRequest(
            session_id=session_id,
            pool=pool,
            instance_id=instance_id,
            **fields,
        )
        return Call(self.registry, request)

    def pass_time(self, seconds: float) -> None:
        """As the server does: tick at each deadline on the way."""
        end = self.now + seconds
        while (due := self.registry.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.registry.tick()
        self.now = end

    def statuses(self, instance_id: int = 1) -> dict[str, str]:
        sessions = self.registry.list(instance_id=instance_id)
        return {session.session_id: Status.Name(session.status).removeprefix("STATUS_") for session in sessions}

    def pending(self, pool: NamespacedName = CPU) -> int:
        return self.registry.pool_agents(pool).pending_sessions


def execution(
    session_id: str, *, started: bool = True, instance_id: int = 1, pool: str = "cpu"
) -> velda_pb2.CurrentExecution:
    """What an agent reports of a session when it joins."""
    request = velda_pb2.SessionRequest(session_id=session_id, instance_id=instance_id, pool=pool)
    if not started:
        return velda_pb2.CurrentExecution(request=request)
    response = velda_pb2.SessionInitResponse(
        session_id=session_id, instance_id=instance_id, success=True, port=2222, host_key=b"key"
    )
    return velda_pb2.CurrentExecution(request=request, response=response)
