"""What the broker knows of one pool: its agents, and the sessions that wait there."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from app.broker.refusal import RefusedError
from app.broker.sessions import Session, SessionKey
from app.core.agents import AgentView, PoolAgents
from app.core.dispatch import Ranking, agent_rank
from app.model.meta import NamespacedName
from app.proto import velda_pb2

REST_FIRST = 1.0
REST_MAX = 30.0
"""Seconds that an agent gets no session after a failed start, doubled each time until a start succeeds."""


class Strength(IntEnum):
    """How well an agent has proved which pod it is, weakest first."""

    NONE = 0
    HOST_ADDRESS = 1
    """It dials from its node's address, as all can that run on the host's network there."""
    ADDRESS = 2
    TOKEN = 3
    CERTIFICATE = 4


class Link(Protocol):
    """An agent's open stream, as the registry uses it: neither call waits, nor calls the registry back at once."""

    def send(self, message: velda_pb2.AgentUpdateResponse) -> None: ...

    def close(self, why: RefusedError | None) -> None:
        """End it after all that was sent: cleanly (the agent joins again in 1 s), or with an error."""
        ...


@dataclass(eq=False, slots=True)
class Agent:
    """One agent, connected or lost. ``since`` as in AgentView; ``heard`` and ``since`` in monotonic seconds."""

    pool: NamespacedName
    name: str
    link: Link | None = None
    address: str = ""
    strength: Strength = Strength.NONE
    slots: int = 1
    since: float = 0.0
    heard: float = 0.0
    draining: bool = False
    """Its pod is being deleted: it gets no more sessions."""
    failures: int = 0
    """Starts that failed since the last that did not."""
    resting: bool = False
    sessions: dict[SessionKey, Session] = field(default_factory=dict)
    disowned: set[SessionKey] = field(default_factory=set)
    """Asked of it and then given to others, without its answer: it may yet say that it runs them."""

    def rest_seconds(self) -> float:
        return float(min(REST_MAX, REST_FIRST * 2 ** min(self.failures - 1, 10)))

    def request(self, session: Session) -> None:
        if self.link:
            self.link.send(velda_pb2.AgentUpdateResponse(session_request=session.request))

    def kill(self, key: SessionKey, *, force: bool = False) -> None:
        if self.link:
            kill = velda_pb2.KillSessionAgentRequest(
                instance_id=key.instance_id, session_id=key.session_id, force=force
            )
            self.link.send(velda_pb2.AgentUpdateResponse(kill_session_request=kill))

    def view(self) -> AgentView:
        return AgentView(
            name=self.name,
            connected=self.link is not None,
            slots=self.slots,
            sessions=len(self.sessions),
            since=self.since,
            draining=self.draining,
        )


@dataclass(eq=False, slots=True)
class PoolState:
    """One pool's agents by name, the waiting sessions, and the agents with a free slot."""

    key: NamespacedName
    agents: dict[str, Agent] = field(default_factory=dict)
    queue: Ranking[Session] = field(default_factory=Ranking)
    held: dict[Session, None] = field(default_factory=dict)
    """Sessions that an agent of the term before may run: neither in the queue nor with an agent."""
    bench: Ranking[Agent] = field(default_factory=Ranking)
    barred: set[str] = field(default_factory=set)
    """Names that the controller drained: they may not join (again)."""
    closed: bool = False
    requested: int = 0
    """Sessions that were ever requested."""

    def rank(self, agent: Agent) -> None:
        """Enter the agent where it now belongs: with a free slot, or not in dispatch."""
        rank = agent_rank(slots=agent.slots, sessions=len(agent.sessions), since=agent.since)
        if rank is None or agent.link is None or agent.draining or agent.resting or self.closed:
            self.bench.discard(agent)
        else:
            self.bench.set(agent, rank)

    def sessions(self) -> list[Session]:
        """All that live: those that wait, and then those that agents have."""
        running = [session for agent in self.agents.values() for session in agent.sessions.values()]
        return [*self.queue, *self.held, *running]

    def view(self) -> PoolAgents:
        views = {name: agent.view() for name, agent in self.agents.items()}
        waiting = len(self.queue) + len(self.held)
        return PoolAgents(agents=views, pending_sessions=waiting, requested_sessions=self.requested)
