"""The first minute of a term: sessions of the term before come back with their agents, and must not start twice.

A new leader knows no session until its agent has joined. A request that is repeated to it by session_id, or that names
a service, may mean one that runs; it is held until the agents that can have it are here or their pods are gone.
"""

from __future__ import annotations

from app.broker.agents import PoolState
from app.broker.lifecycle import Lifecycle
from app.broker.refusal import Reason, RefusedError
from app.broker.sessions import Session
from app.core.agents import PoolDirectory
from app.model.meta import NamespacedName
from app.proto import velda_pb2

REJOIN_TIME = 60.0
"""Seconds that agents of the term before have to join: 40 until the last notices that its stream is broken, and 15
between two tries of our agent. Who comes later finds its session started elsewhere, and is told to end it."""


class Returning:
    """Whose pod was there when the term began, and who of them has not joined yet, by pool."""

    def __init__(self, pools: PoolDirectory, life: Lifecycle) -> None:
        self._life = life
        self._until = life.clock() + REJOIN_TIME
        present = {info.key: pools.may_join(info.key) for info in pools.pools()}
        self._awaited = {pool: names for pool, names in present.items() if names}

    def require_all(self) -> None:
        """Raises RefusedError while a session that nobody knows may yet come back."""
        if any(self._expects(pool) for pool in self._awaited):
            left = sum(map(len, self._awaited.values()))
            message = f"{left} agents have not joined since the leader changed, the session may be theirs; try again"
            raise RefusedError(Reason.RETURNING, message)

    def may_have(self, pool: NamespacedName, request: velda_pb2.SessionRequest) -> bool:
        """Whether an agent that is still to come may run what the request means."""
        named = request.session_id or (request.service_name and not request.force_new_session)
        return bool(named) and self._expects(pool)

    def hold(self, session: Session) -> None:
        """Not to be started yet."""
        pool = self._life.pool(session.pool)
        pool.held[session] = None
        self._life.timers.set(self._release, pool, self._until)

    def here(self, pool: NamespacedName, name: str) -> None:
        """The agent has joined and said what it runs, or its pod is gone."""
        awaited = self._awaited.get(pool)
        if awaited is None:
            return
        awaited.discard(name)
        if not awaited:
            del self._awaited[pool]
            self._release(self._life.pool(pool))

    def _expects(self, pool: NamespacedName) -> bool:
        return pool in self._awaited and self._life.clock() < self._until

    def _release(self, pool: PoolState) -> None:
        self._life.timers.discard(self._release, pool)
        held, pool.held = pool.held, {}
        for session in held:
            self._life.enqueue(session)
        self._life.settle(pool)
