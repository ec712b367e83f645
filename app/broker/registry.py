"""Who has joined, what runs where, what waits. No gRPC and no clock here: a simulator can drive it as the server does.

Messages come in by method calls and go out through each agent's Link; time comes from ``clock`` and by ``tick``. All
is kept by pool, and no event costs more because other pools or more agents exist.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from app import __version__
from app.broker.agents import Agent, Link, PoolState, Strength
from app.broker.lifecycle import Lifecycle
from app.broker.refusal import Reason, RefusedError, one_pool, unknown_pool
from app.broker.returning import Returning
from app.broker.sessions import AboutNamed, Done, Session, Status, key_of, refuse_batch_work, service_of
from app.core import trace
from app.core.agents import PoolAgents, PoolDirectory
from app.model.meta import NamespacedName
from app.obs.pools import POOLS
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
        leading: Callable[[], bool] = lambda: True,
    ) -> None:
        """Once ``leading`` is False no session is started and no request taken, whether or not ``stop`` came yet."""
        self._directory = pools
        self._clock = clock
        self._leading = leading
        self._life = Lifecycle(clock=clock, wall=wall, on_change=on_change, record=record, may_start=leading)
        self._returning = Returning(pools, self._life)
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

    def request(
        self,
        request: velda_pb2.SessionRequest,
        done: Done,
        *,
        pool: NamespacedName | None = None,
        user: str = "",
    ) -> Callable[[], None]:
        """Start a session, or join those who wait for it; ``done`` is called once, possibly before this returns.

        ``pool`` is the only one in which the caller may have it, by default that which the request names; ``user`` is
        whose it is if the request does not say so. Returns what to call when the caller leaves: a session that nobody
        waits for any more is not started. Raises RefusedError.
        """
        self.require_serving()
        refuse_batch_work(request)
        session = self._live(request)
        if session and pool and session.pool != pool:
            raise RefusedError(Reason.SESSION_ENDED, f'session "{session.id}" is of another pool now, try again')
        if session and session.status in (Status.STATUS_RUNNING, Status.STATUS_STALE):
            done(session.execution_status())
            return lambda: None
        new = session is None
        session = session or self._create(request, pool, user)
        session.waiters.append(done)
        if new:
            self._life.settle(self._life.pool(session.pool))
        return partial(self._leave, session, done)

    def meant(self, request: velda_pb2.SessionRequest) -> NamespacedName | None:
        """The pool of the live session that the request means; None if it asks for a new one. Raises RefusedError."""
        session = self._live(request)
        return session.pool if session else None

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
            self._returning.require_all()
            name = request.service_name or request.session_id
            ending = self._life.table.ending(key_of(request))
            message = f'no session "{name}" runs, and the request allows no new one{ending}'
            raise RefusedError(Reason.NO_SESSION, message)
        return None

    def _create(self, request: velda_pb2.SessionRequest, pool: NamespacedName | None, user: str) -> Session:
        info = one_pool(self._directory, str(pool or request.pool))
        if info.deleting or self._life.pool(info.key).closed:
            raise RefusedError(Reason.POOL_DELETING, f"pool {info.key} is being deleted")
        own = velda_pb2.SessionRequest()
        own.CopyFrom(request)
        own.session_id = own.session_id or str(uuid.uuid4())
        own.user = own.user or user
        self._arrivals += 1
        session = Session(
            request=own, pool=info.key, requested_at=self._clock(), arrival=self._arrivals, tags=dict(own.tags)
        )
        self._life.table.add(session)
        self._record(info.key, trace.SessionRequested, session.trace_id, own.priority)
        if self._returning.may_have(info.key, request):
            self._returning.hold(session)
        else:
            self._life.enqueue(session)
        self._life.pool(info.key).requested += 1
        POOLS.of(info.key).sessions_requested += 1
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
        for session in self._named(request):
            log.info("session is to end", pool=str(session.pool), session=session.id, force=request.force)
            why = RefusedError(Reason.SESSION_ENDED, f'session "{session.id}" was killed before it started')
            self._life.end(session, why, force=request.force)
            self._life.settle(self._life.pool(session.pool))

    def list(
        self, *, instance_id: int, service_name: str = "", shown: Callable[[NamespacedName], bool] = lambda pool: True
    ) -> list[velda_pb2.Session]:
        """Live sessions, of an instance or of one service, of the pools to be shown, in the order of their requests."""
        found = self._life.table.of(instance_id=instance_id, service_name=service_name)
        return [session.describe() for session in found if shown(session.pool)]

    def pools_with_sessions(self, *, instance_id: int, service_name: str = "") -> set[NamespacedName]:
        """Those of all that ``list`` has to show."""
        return {session.pool for session in self._life.table.of(instance_id=instance_id, service_name=service_name)}

    def set_tags(
        self, request: velda_pb2.SetTagRequest, *, check: Callable[[dict[str, str]], None] = lambda tags: None
    ) -> None:
        """Merge tags into the session's own; an empty value removes one. Raises RefusedError, as may ``check``."""
        for session in self._named(request):
            tags = session.merged_tags(dict(request.tags))
            check(tags)
            session.tags = tags

    def pools_of(self, request: AboutNamed) -> set[NamespacedName]:
        """Where the session is, or those of the service. Raises RefusedError."""
        return {session.pool for session in self._named(request)}

    def _named(self, request: AboutNamed) -> Sequence[Session]:
        try:
            found = self._life.table.named(
                instance_id=request.instance_id, session_id=request.session_id, service_name=service_of(request)
            )
        except RefusedError as refused:
            if refused.reason is Reason.NO_SESSION:
                self._returning.require_all()
            raise
        if any(session in self._life.pool(session.pool).held for session in found):
            self._returning.require_all()
        return found

    # Agents. A link that was replaced or closed is not known any more, and what still comes from it is ignored.

    def join(
        self,
        *,
        pool: NamespacedName,
        name: str,
        address: str,
        first: velda_pb2.AgentUpdateRequest,
        link: Link,
        strength: Strength = Strength.NONE,
    ) -> None:
        """An agent's stream has begun; a stream that it had is ended. Raises RefusedError.

        Who is not as well authenticated as the agent was before may be somebody else, and changes nothing.
        """
        self.require_serving()
        state = self._life.pool(pool)
        if name in state.barred:
            raise RefusedError(Reason.AGENT_DRAINED, f"agent {name} is being removed from pool {pool}")
        agent = state.agents.setdefault(name, Agent(pool=pool, name=name))
        if strength < agent.strength:
            proofs = f"by {strength.name}, and before by {agent.strength.name}"
            raise RefusedError(Reason.WEAKER_PROOF, f"agent {name} of pool {pool} is authenticated {proofs}")
        if agent.link:
            self._disconnect(agent, RefusedError(Reason.AGENT_REPLACED, f"agent {name} opened another stream"))
            self._life.strand(agent)
        self._links[link] = agent
        now = self._clock()
        agent.link, agent.address, agent.slots = link, address, max(1, first.slots)
        agent.strength = strength
        agent.since = agent.heard = now
        link.send(velda_pb2.AgentUpdateResponse(server_info=velda_pb2.ServerInfo(version=__version__)))
        self._record(pool, trace.AgentJoined, name, agent.slots)
        self._life.refresh(agent)
        self._life.resume(agent, list(first.current_executions))
        self._life.timers.set(self._silent, agent, now + SILENCE_TIMEOUT)
        state.rank(agent)
        log.info("agent joined", pool=str(pool), agent=name, address=address, sessions=len(agent.sessions))
        self._returning.here(pool, name)
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

    def expel(self, link: Link, why: RefusedError) -> None:
        """It sent what no agent may: the stream ends, and the agent may come back, with its sessions."""
        if agent := self._links.get(link):
            log.warning("agent lost", pool=str(agent.pool), agent=agent.name, cause=why.message)
            self._lost(agent, why)

    def left(self, link: Link) -> None:
        """The agent half-closed its stream: it is stopping, and its sessions are over."""
        if agent := self._links.get(link):
            log.info("agent left", pool=str(agent.pool), agent=agent.name)
            self._life.abandon(agent, "its agent has stopped")
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

    def sessions_of(self, pool: NamespacedName) -> Sequence[Session]:
        """All that live there."""
        state = self._life.pools.get(pool)
        return state.sessions() if state else []

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
        self._returning.here(pool, agent)
        if state := self._life.pools.get(pool):
            state.barred.discard(agent)
            if known := state.agents.get(agent):
                self._forget(state, known, RefusedError(Reason.AGENT_GONE, f"the pod of agent {agent} is gone"))
                self._life.settle(state)

    def _forget(self, state: PoolState, agent: Agent, why: RefusedError) -> None:
        self._disconnect(agent, why)
        self._life.abandon(agent, "its agent is gone")
        self._life.refresh(agent)
        del state.agents[agent.name]

    def close_pool(self, pool: NamespacedName) -> None:
        state = self._life.pool(pool)
        if state.closed:
            return
        state.closed = True
        why = RefusedError(Reason.POOL_DELETING, f"pool {pool} is being deleted")
        for session in state.sessions():
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

    def require_serving(self) -> None:
        """Raises RefusedError once ``stop`` was called, or should have been."""
        if self._stopping or not self._leading():
            raise RefusedError(Reason.STOPPING, "the server is stopping, try again")

    def stop(self) -> None:
        """Fail what waits and end every stream cleanly: agents and clients turn to the next leader."""
        self._stopping = True
        why = RefusedError(Reason.STOPPING, "the server is stopping, try again")
        for session in self._life.table:
            if session.status in (Status.STATUS_QUEUEING, Status.STATUS_PENDING):
                self._life.end(session, why)
        for agent in list(self._links.values()):
            self._disconnect(agent, None)
