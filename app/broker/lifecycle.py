"""A session's way from the queue through an agent to its end: the transitions, and what each does to agent and pool."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from app.broker.agents import Agent, PoolState
from app.broker.refusal import Reason, RefusedError
from app.broker.sessions import Session, SessionTable, Status, key_of
from app.broker.timers import Timers
from app.core import trace
from app.core.dispatch import match, session_rank
from app.model.meta import NamespacedName
from app.obs import metrics, spans
from app.obs.pools import POOLS
from app.proto import velda_pb2

START_TIMEOUT = 60.0
"""Seconds that an agent has to answer a session request without an init_timeout."""
START_ATTEMPTS = 10
"""Failed starts after which a session is given up: by then the session is the likelier cause, not the agents."""

log = structlog.get_logger()


class Lifecycle:
    """Pools, sessions and timers, and all that moves a session from one state to the next."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        on_change: Callable[[NamespacedName], None],
        record: trace.Recorder = trace.nobody,
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        self.clock = clock
        self.pools: dict[NamespacedName, PoolState] = {}
        self.table = SessionTable()
        self.timers = Timers()
        self.wall = wall
        self.record = record
        self._on_change = on_change
        self._may_start = may_start

    def pool(self, key: NamespacedName) -> PoolState:
        return self.pools.setdefault(key, PoolState(key))

    def settle(self, pool: PoolState) -> None:
        """After any change: start what can be started, and tell the controller."""
        while self._may_start() and (pair := match(pool.queue, pool.bench)):
            self._start(pool, *pair)
        self._on_change(pool.key)

    # Waiting.

    def enqueue(self, session: Session) -> None:
        """Into the queue of its pool, or back into it, at the place that its arrival gives."""
        session.status, session.agent, session.response = Status.STATUS_QUEUEING, None, None
        rank = session_rank(priority=session.request.priority, arrival=session.arrival)
        self.pool(session.pool).queue.set(session, rank)

    def _start(self, pool: PoolState, session: Session, agent: Agent) -> None:
        now = self.clock()
        pool.queue.discard(session)
        agent.since = now
        self._assign(pool, session, agent, now=now)
        metrics.SESSION_QUEUE_SECONDS.observe(now - session.requested_at)
        agent.request(session)

    def _assign(self, pool: PoolState, session: Session, agent: Agent, *, now: float) -> None:
        session.status, session.agent, session.asked_at = Status.STATUS_PENDING, agent, now
        agent.sessions[session.key] = session
        self.record(pool.key, trace.SessionStarted(self.wall(), session.trace_id, agent.name))
        pool.rank(agent)
        self.timers.set(self._start_timed_out, session, now + _start_timeout(session.request))

    # An agent's answers.

    def answered(self, agent: Agent, response: velda_pb2.SessionInitResponse) -> None:
        """Only about sessions that this agent was asked to start; a late success is ended again."""
        key = key_of(response)
        session = agent.sessions.get(key)
        if session is None:
            if key in agent.disowned and response.success:
                log.info("late session ended", pool=str(agent.pool), agent=agent.name, session=key.session_id)
            agent.disowned.discard(key)
            if response.success:
                agent.kill(key)
        elif session.status != Status.STATUS_PENDING:
            return
        elif response.success:
            agent.failures = 0
            session.started_at = self.wall()
            self._running(session, response)
            POOLS.of(agent.pool).sessions_started += 1
            self._measure(session, agent)
            log.info("session started", pool=str(agent.pool), agent=agent.name, session=key.session_id)
            if session.ending:
                agent.kill(key, force=session.force)
        else:
            self._start_failed(session, "refused it")

    def _measure(self, session: Session, agent: Agent) -> None:
        now = self.clock()
        metrics.TIME_TO_SESSION.observe(now - session.requested_at)
        about: spans.Attributes = {"velda.pool": agent.pool, "velda.agent": agent.name, "velda.session": session.id}
        parts = {"queue": session.asked_at - session.requested_at, "start": now - session.asked_at}
        spans.past("session", about, parts=parts)

    def completed(self, agent: Agent, completion: velda_pb2.SessionCompletion) -> None:
        """Only of this agent's own sessions."""
        key = key_of(completion)
        session = agent.sessions.get(key)
        if session is None:
            agent.disowned.discard(key)
        elif session.status == Status.STATUS_PENDING:
            self._start_failed(session, "ended it before it had started")
        else:
            log.info("session ended", pool=str(agent.pool), agent=agent.name, session=key.session_id)
            self.drop(session, ended(session))
            self.settle(self.pool(agent.pool))

    def _running(self, session: Session, response: velda_pb2.SessionInitResponse) -> None:
        self.timers.discard(self._start_timed_out, session)
        session.status, session.response = Status.STATUS_RUNNING, response
        session.answer(session.execution_status())
        for held in self._held_for(session):
            held.answer(session.execution_status())
            self.drop(held, ended(held))
            self._on_change(held.pool)

    def _held_for(self, session: Session) -> list[Session]:
        """Those that wait for this one without knowing: it is of the service that they name."""
        held = self.pool(session.pool).held
        if not held or not session.request.service_name:
            return []
        of_service = self.table.of_service(session.request.instance_id, session.request.service_name)
        return [other for other in of_service if other in held and not other.request.force_new_session]

    def _start_timed_out(self, session: Session) -> None:
        if session.agent:
            session.agent.kill(session.key)
            session.agent.disowned.add(session.key)
        self._start_failed(session, "did not answer in time")

    def _start_failed(self, session: Session, what: str) -> None:
        """Pass the agent over and let another have the session, if anybody still waits for it."""
        agent, pool = session.agent, self.pool(session.pool)
        self._release(session)
        if agent and not session.ending:
            self._rest(agent)
            session.attempts += 1
            POOLS.of(pool.key).session_starts_failed += 1
            log.warning("session not started", pool=str(pool.key), agent=agent.name, session=session.id, cause=what)
        if not session.waiters:
            self.drop(session, ended(session))
        elif session.attempts >= START_ATTEMPTS:
            last = f"; the last, {agent.name}, {what}" if agent else ""
            message = f'session "{session.id}" failed to start on {session.attempts} agents{last}'
            self.drop(session, RefusedError(Reason.START_FAILED, message))
        else:
            self._return(session)
        self.settle(pool)

    def _release(self, session: Session) -> None:
        """Its slot is free again."""
        self.timers.discard(self._start_timed_out, session)
        agent, session.agent = session.agent, None
        if agent:
            agent.sessions.pop(session.key, None)
            if not agent.sessions and agent.link:
                agent.since = self.clock()
            self.pool(agent.pool).rank(agent)

    def _rest(self, agent: Agent) -> None:
        agent.failures += 1
        agent.resting = True
        self.pool(agent.pool).rank(agent)
        self.timers.set(self._rested, agent, self.clock() + agent.rest_seconds())

    def _rested(self, agent: Agent) -> None:
        agent.resting = False
        pool = self.pool(agent.pool)
        pool.rank(agent)
        self.settle(pool)

    def refresh(self, agent: Agent) -> None:
        """Whatever failed before, it counts no more."""
        agent.failures, agent.resting = 0, False
        self.timers.discard(self._rested, agent)

    # Agents that come and go.

    def strand(self, agent: Agent) -> None:
        """Its stream broke: what runs there is stale; what it had not yet answered goes to another."""
        for session in list(agent.sessions.values()):
            self.timers.discard(self._start_timed_out, session)
            if session.status == Status.STATUS_PENDING and session.waiters:
                self._disown(session, agent)
            else:
                session.status = Status.STATUS_STALE

    def abandon(self, agent: Agent, cause: str) -> None:
        """It is over, and so are its sessions; those that had not started go to another."""
        for session in list(agent.sessions.values()):
            if session.status == Status.STATUS_PENDING and session.waiters:
                self._disown(session, agent)
            else:
                log.info("session ended", pool=str(agent.pool), agent=agent.name, session=session.id, cause=cause)
                self.drop(session, ended(session, cause))

    def resume(self, agent: Agent, executions: list[velda_pb2.CurrentExecution]) -> None:
        """It joined: what it reports is its own and runs, unless another has it; what it no longer reports is over."""
        known, agent.sessions = agent.sessions, {}
        for execution in executions:
            key = key_of(execution.request)
            if not key.session_id or key in agent.sessions:
                continue
            session = known.pop(key, None) or self._claim(agent, execution.request)
            if session:
                self._resume(agent, session, execution.response)
            else:
                agent.kill(key)
        for session in known.values():
            self.drop(session, ended(session, "its agent came back without it"))
        agent.disowned.clear()

    def _claim(self, agent: Agent, request: velda_pb2.SessionRequest) -> Session | None:
        """A session from before this process led, or one that waits again because this agent's stream broke."""
        key, pool = key_of(request), self.pool(agent.pool)
        if request.pool not in (agent.pool.name, str(agent.pool)):
            return None
        session = self.table.get(key)
        if session and session.pool != agent.pool and session in self.pool(session.pool).held:
            message = f'session "{session.id}" is of another pool now, try again'
            self.drop(session, RefusedError(Reason.SESSION_ENDED, message))
            session = None
        if session is None and key not in agent.disowned:
            session = Session(request=request, pool=agent.pool, requested_at=self.clock(), tags=dict(request.tags))
            self.table.add(session)
            return session
        if session and (session in pool.held or (session in pool.queue and key in agent.disowned)):
            pool.held.pop(session, None)
            pool.queue.discard(session)
            return session
        return None

    def _resume(self, agent: Agent, session: Session, response: velda_pb2.SessionInitResponse) -> None:
        pool = self.pool(agent.pool)
        self._assign(pool, session, agent, now=self.clock())
        if response.success or session.response:
            self._running(session, response if response.success else session.response or response)
        if pool.closed or session.ending:
            self.end(session, ended(session), force=session.force)

    def _disown(self, session: Session, agent: Agent) -> None:
        self._release(session)
        agent.disowned.add(session.key)
        self._return(session)

    def _return(self, session: Session) -> None:
        """It did not start: back to its place in the queue."""
        self.record(session.pool, trace.SessionReturned(self.wall(), session.trace_id))
        self.enqueue(session)

    # Ends.

    def end(self, session: Session, why: RefusedError, *, force: bool = False) -> None:
        """Out of the queue at once; else its agent is told to end it, now or when it joins again."""
        session.ending = True
        session.force = session.force or force
        if session.status == Status.STATUS_QUEUEING:
            self.drop(session, why)
            return
        session.answer(why)
        if session.agent:
            session.agent.kill(session.key, force=session.force)

    def drop(self, session: Session, why: RefusedError) -> None:
        """It is over: out of every table; whoever waits is told why."""
        waited = session.status == Status.STATUS_QUEUEING
        gone = trace.SessionCancelled if waited else trace.SessionEnded
        self.record(session.pool, gone(self.wall(), session.trace_id))
        self.table.remove(session, why.message)
        pool = self.pool(session.pool)
        pool.queue.discard(session)
        pool.held.pop(session, None)
        self._release(session)
        session.answer(why)


def ended(session: Session, cause: str = "") -> RefusedError:
    more = f": {cause}" if cause else ""
    return RefusedError(Reason.SESSION_ENDED, f'session "{session.id}" has ended{more}')


def _start_timeout(request: velda_pb2.SessionRequest) -> float:
    seconds = request.init_timeout.seconds + request.init_timeout.nanos / 1e9
    return seconds if seconds > 0 else START_TIMEOUT
