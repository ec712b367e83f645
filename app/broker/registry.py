"""Who has joined, what runs where, what waits. No gRPC and no clock here: a simulator can drive it as the server does.

Messages come in by method calls and go out through each agent's Link; time comes from ``clock`` and by ``tick``. All
is kept by pool, and no event costs more because other pools or more agents exist.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial

import structlog

from app import __version__
from app.broker.agents import Agent, Link, PoolState
from app.broker.lifecycle import Lifecycle
from app.broker.refusal import Reason, RefusedError, one_pool, unknown_pool
from app.broker.sessions import Done, Session, Status, key_of, refuse_batch_work
from app.core import trace
from app.core.agents import PoolAgents, PoolDirectory
from app.model.meta import NamespacedName
from app.obs import metrics
from app.proto import velda_pb2

SILENCE_TIMEOUT = 90.0
"""Seconds without a message, three heartbeats, after which an agent counts as lost."""

log = structlog.get_logger()


class Registry:
    """The broker's state. Implements AgentDirectory for the controller. For one thread."""

    def __init__(
        self,
        pools: PoolDirectory,
        *,
        clock: Callable[[], float],
        on_change: Callable[[NamespacedName], None],
        wall: Callable[[], float] = time.time,
        record: trace.Recorder = trace.nobody,
    ) -> None:
        self._directory = pools
        self._clock = clock
        self._life = Lifecycle(clock=clock, wall=wall, on_change=on_change, record=record)
        self._links: dict[Link, Agent] = {}
        self._arrivals = 0
        self._stopping = False

    def _record(self, pool: NamespacedName, event: Callable[..., trace.Record], *values: object) -> None:
        self._life.record(pool, event(self._life.wall(), *values))

    # Time.

    def on_deadline(self, wake: Callable[[float], None]) -> None:
        """Have ``wake`` told of each time that becomes the next at which ``tick`` is due."""
        self._life.timers.wake = wake

    def next_deadline(self) -> float | None:
        return self._life.timers.next()

    def tick(self) -> None:
        """Do what is due: starts that took too long, agents that were silent or have rested."""
        self._life.timers.run_due(self._clock())

    # Clients.

    def request(self, request: velda_pb2.SessionRequest, done: Done) -> Callable[[], None]:
        """Start a session, or join those who wait for it; ``done`` is called once, possibly before this returns.

        Returns what to call when the caller leaves: a session that nobody waits for any more is not started. Raises
        RefusedError.
        """
        if self._stopping:
            raise RefusedError(Reason.STOPPING, "the server is stopping, try again")
        refuse_batch_work(request)
        session = self._live(request)
        if session and session.status in (Status.STATUS_RUNNING, Status.STATUS_STALE):
            done(session.execution_status())
            return lambda: None
        new = session is None
        session = session or self._create(request)
        session.waiters.append(done)
        if new:
            self._life.settle(self._life.pool(session.pool))
        return partial(self._leave, session, done)

    def _live(self, request: velda_pb2.SessionRequest) -> Session | None:
        """The session that the request means, if it lives."""
        if request.session_id and (session := self._life.table.get(key_of(request))):
            if session.ending:
                raise RefusedError(Reason.SESSION_ENDED, f'session "{session.id}" is being ended')
            return session
        if request.service_name and not request.force_new_session:
            of_service = self._life.table.of_service(request.instance_id, request.service_name)
            if live := [session for session in of_service if not session.ending]:
                return max(live, key=lambda session: (session.status == Status.STATUS_RUNNING, session.arrival))
        if request.disallow_new_session:
            name = request.service_name or request.session_id
            raise RefusedError(Reason.NO_SESSION, f'no session "{name}" runs, and the request allows no new one')
        return None

    def _create(self, request: velda_pb2.SessionRequest) -> Session:
        info = one_pool(self._directory, request.pool)
        if info.deleting or self._life.pool(info.key).closed:
            raise RefusedError(Reason.POOL_DELETING, f"pool {info.key} is being deleted")
        own = velda_pb2.SessionRequest()
        own.CopyFrom(request)
        own.session_id = own.session_id or str(uuid.uuid4())
        self._arrivals += 1
        session = Session(
            request=own, pool=info.key, requested_at=self._clock(), arrival=self._arrivals, tags=dict(own.tags)
        )
        self._life.table.add(session)
        self._record(info.key, trace.SessionRequested, session.trace_id, own.priority)
        self._life.enqueue(session)
        self._life.pool(info.key).requested += 1
        metrics.SESSIONS_REQUESTED.labels(info.key.namespace).inc()
        return session

    def _leave(self, session: Session, done: Done) -> None:
        if done not in session.waiters:
            return
        session.waiters.remove(done)
        if not session.waiters:
            why = RefusedError(Reason.SESSION_ENDED, f'session "{session.id}" was given up')
            self._life.end(session, why)
            self._life.settle(self._life.pool(session.pool))

    def kill(self, request: velda_pb2.KillSessionRequest) -> None:
        """Ask the session, or all of the service, to end; asking again does no harm. Raises RefusedError."""
        found = self._life.table.named(
            instance_id=request.instance_id, session_id=request.session_id, service_name=request.service_name
        )
        for session in found:
            log.info("session is to end", pool=str(session.pool), session=session.id, force=request.force)
            why = RefusedError(Reason.SESSION_ENDED, f'session "{session.id}" was killed before it started')
            self._life.end(session, why, force=request.force)
            self._life.settle(self._life.pool(session.pool))

    def list(self, *, instance_id: int, service_name: str = "") -> list[velda_pb2.Session]:
        """An instance's live sessions, or those of one service, in the order in which they were requested."""
        table = self._life.table
        found = table.of_service(instance_id, service_name) if service_name else table.of_instance(instance_id)
        return [session.describe() for session in found]

    def set_tags(self, request: velda_pb2.SetTagRequest) -> None:
        """Merge tags into the session's own; an empty value removes one. Raises RefusedError."""
        for session in self._life.table.named(instance_id=request.instance_id, session_id=request.session_id):
            session.set_tags(dict(request.tags))

    # Agents. A link that was replaced or closed is not known any more, and what still comes from it is ignored.

    def join(
        self, *, pool: NamespacedName, name: str, address: str, first: velda_pb2.AgentUpdateRequest, link: Link
    ) -> None:
        """An agent's stream has begun; a stream that it had is ended. Raises RefusedError."""
        if self._stopping:
            raise RefusedError(Reason.STOPPING, "the server is stopping, try again")
        state = self._life.pool(pool)
        if name in state.barred:
            raise RefusedError(Reason.AGENT_DRAINED, f"agent {name} is being removed from pool {pool}")
        agent = state.agents.setdefault(name, Agent(pool=pool, name=name))
        if agent.link:
            self._disconnect(agent, RefusedError(Reason.AGENT_REPLACED, f"agent {name} opened another stream"))
            self._life.strand(agent)
        self._links[link] = agent
        now = self._clock()
        agent.link, agent.address, agent.slots = link, address, max(1, first.slots)
        agent.since = agent.heard = now
        link.send(velda_pb2.AgentUpdateResponse(server_info=velda_pb2.ServerInfo(version=__version__)))
        self._record(pool, trace.AgentJoined, name, agent.slots)
        self._life.refresh(agent)
        self._life.resume(agent, list(first.current_executions))
        self._life.timers.set(self._silent, agent, now + SILENCE_TIMEOUT)
        state.rank(agent)
        log.info("agent joined", pool=str(pool), agent=name, address=address, sessions=len(agent.sessions))
        self._life.settle(state)

    def receive(self, link: Link, message: velda_pb2.AgentUpdateRequest) -> None:
        """Any later message of the stream; an empty one is a heartbeat."""
        agent = self._links.get(link)
        if agent is None:
            return
        agent.heard = self._clock()
        if message.HasField("session_init_response"):
            self._life.answered(agent, message.session_init_response)
        if message.HasField("session_completion"):
            self._life.completed(agent, message.session_completion)

    def lost(self, link: Link) -> None:
        """The stream broke: the agent may come back, with its sessions."""
        if agent := self._links.get(link):
            log.warning("agent lost", pool=str(agent.pool), agent=agent.name, sessions=len(agent.sessions))
            self._lost(agent, None)

    def left(self, link: Link) -> None:
        """The agent half-closed its stream: it is stopping, and its sessions are over."""
        if agent := self._links.get(link):
            log.info("agent left", pool=str(agent.pool), agent=agent.name)
            self._life.abandon(agent)
            self._lost(agent, None)

    def _lost(self, agent: Agent, why: RefusedError | None) -> None:
        self._disconnect(agent, why)
        self._record(agent.pool, trace.AgentLost, agent.name)
        self._life.strand(agent)
        agent.since = self._clock()
        self._life.settle(self._life.pool(agent.pool))

    def _silent(self, agent: Agent) -> None:
        due = agent.heard + SILENCE_TIMEOUT
        if due > self._clock():
            self._life.timers.set(self._silent, agent, due)
            return
        log.warning("agent lost", pool=str(agent.pool), agent=agent.name, silent_for_seconds=SILENCE_TIMEOUT)
        self._lost(agent, RefusedError(Reason.AGENT_SILENT, f"nothing heard for {SILENCE_TIMEOUT:.0f} s"))

    def _disconnect(self, agent: Agent, why: RefusedError | None) -> None:
        """End its stream and take it out of dispatch."""
        self._life.timers.discard(self._silent, agent)
        if agent.link:
            link, agent.link = agent.link, None
            del self._links[link]
            link.close(why)
        self._life.pool(agent.pool).rank(agent)

    # AgentDirectory, used by the controller.

    def pool_agents(self, pool: NamespacedName) -> PoolAgents:
        state = self._life.pools.get(pool)
        return state.view() if state else PoolAgents()

    def drain(self, pool: NamespacedName, agent: str) -> bool:
        state = self._life.pool(pool)
        known = state.agents.get(agent)
        if known and known.link and known.sessions:
            return False
        state.barred.add(agent)
        if known:
            known.draining = True
            state.rank(known)
        return True

    def undrain(self, pool: NamespacedName, agent: str) -> None:
        state = self._life.pool(pool)
        state.barred.discard(agent)
        if known := state.agents.get(agent):
            known.draining = False
            state.rank(known)
            self._life.settle(state)

    def terminating(self, pool: NamespacedName, agent: str) -> None:
        """Its pod is being deleted, by whomever: no more sessions for it; those that it has go on."""
        state = self._life.pools.get(pool)
        known = state.agents.get(agent) if state else None
        if state and known:
            known.draining = True
            state.rank(known)

    def forget(self, pool: NamespacedName, agent: str) -> None:
        if state := self._life.pools.get(pool):
            state.barred.discard(agent)
            if known := state.agents.get(agent):
                self._forget(state, known, RefusedError(Reason.AGENT_GONE, f"the pod of agent {agent} is gone"))
                self._life.settle(state)

    def _forget(self, state: PoolState, agent: Agent, why: RefusedError) -> None:
        self._disconnect(agent, why)
        self._life.abandon(agent)
        self._life.refresh(agent)
        del state.agents[agent.name]

    def close_pool(self, pool: NamespacedName) -> None:
        state = self._life.pool(pool)
        if state.closed:
            return
        state.closed = True
        why = RefusedError(Reason.POOL_DELETING, f"pool {pool} is being deleted")
        running = [session for agent in state.agents.values() for session in agent.sessions.values()]
        for session in [*state.queue, *running]:
            self._life.end(session, why)
        for agent in state.agents.values():
            state.rank(agent)

    def forget_pool(self, pool: NamespacedName) -> None:
        state = self._life.pools.get(pool)
        if state is None:
            return
        self.close_pool(pool)
        for agent in list(state.agents.values()):
            self._forget(state, agent, unknown_pool(str(pool)))
        del self._life.pools[pool]

    # The end of a term of leadership.

    def stop(self) -> None:
        """Fail what waits and end every stream cleanly: agents and clients turn to the next leader."""
        self._stopping = True
        why = RefusedError(Reason.STOPPING, "the server is stopping, try again")
        for session in self._life.table:
            if session.status in (Status.STATUS_QUEUEING, Status.STATUS_PENDING):
                self._life.end(session, why)
        for agent in list(self._links.values()):
            self._disconnect(agent, None)
