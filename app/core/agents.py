"""What the controller and the broker tell each other, as plain values and two protocols; neither imports the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from app.model.meta import NamespacedName


class AgentView(msgspec.Struct, frozen=True, gc=False):
    """One agent as the broker knows it: keyed by its pod's name, which is also its agent_id.

    ``since`` is in seconds of the monotonic clock: when a connected agent became idle or took its latest session,
    when a lost one lost its stream.
    """

    name: str
    connected: bool
    slots: int
    sessions: int
    since: float
    draining: bool = False


class PoolAgents(msgspec.Struct, frozen=True):
    """A pool's agents (by pod name), how many sessions wait for a slot, and how many were ever requested."""

    agents: Mapping[str, AgentView] = {}
    pending_sessions: int = 0
    requested_sessions: int = 0


class AgentDirectory(Protocol):
    """The broker's side, as the controller uses it. All calls are synchronous and atomic in the event loop."""

    def pool_agents(self, pool: NamespacedName) -> PoolAgents:
        """Who has joined (or was lost) and how many sessions wait; empty for a pool that nobody joined."""
        ...

    def drain(self, pool: NamespacedName, agent: str) -> bool:
        """Take an agent out of dispatch before its pod is deleted; False, and nothing done, if it serves a session.

        True as well for an agent that never joined or was lost: it is refused when it joins (again).
        """
        ...

    def undrain(self, pool: NamespacedName, agent: str) -> None:
        """The deletion did not happen: back into dispatch."""
        ...

    def forget(self, pool: NamespacedName, agent: str) -> None:
        """The pod is gone: drop the agent; sessions that it still had end (TERMINATED)."""
        ...

    def close_pool(self, pool: NamespacedName) -> None:
        """The pool is being deleted: refuse new sessions, fail queued ones, ask running ones to end (KillSession)."""
        ...

    def forget_pool(self, pool: NamespacedName) -> None:
        """The pool is gone: drop all that is known of it, so that a new pool of that name starts afresh."""
        ...


class PoolInfo(msgspec.Struct, frozen=True):
    """What the broker must know of a pool: the default of slots that an agent has until it says so itself."""

    key: NamespacedName
    default_slots: int = 1
    deleting: bool = False
    allocation_error: str = ""
    allocation_error_time: float | None = None
    """Of the last failed creation: its message and when (seconds since the epoch); empty and None when all is well."""


class AgentPod(msgspec.Struct, frozen=True):
    """The live pod behind an agent_id.

    ``ip`` is where its sessions are reached; ``more_ips`` are the others of a dual-stack pod. On the host's network
    (``host_network``) they are the node's, which all that runs there shares. ``terminating``: it is being deleted, or
    its containers have ended for good, so that its address may be another's.
    """

    pool: NamespacedName
    name: str
    uid: str
    ip: str = ""
    more_ips: tuple[str, ...] = ()
    host_network: bool = False
    terminating: bool = False

    def __str__(self) -> str:
        return f"pod {self.pool.namespace}/{self.name}"


class PoolDirectory(Protocol):
    """The controller's side, as the broker uses it: answered from the informers' stores, never by a request."""

    def pools(self) -> list[PoolInfo]:
        """Every pool, in the order of its key."""
        ...

    def find_pools(self, name: str) -> list[PoolInfo]:
        """Pools that a bare name or a ``namespace/name`` may mean: none, one, or several of different namespaces."""
        ...

    def may_join(self, pool: NamespacedName) -> set[str]:
        """Names of the pods with an address that the pool owns, or that nobody does, so that it may adopt them yet."""
        ...

    def find_pod(self, pool: NamespacedName, name: str) -> AgentPod | None:
        """The worker pod of that pool with that name, if it exists and is owned by the pool."""
        ...
