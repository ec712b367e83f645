"""Is the agent who it says it is: under the name of a live pod of its pool, and from that pod's address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, NamedTuple
from urllib.parse import unquote

import msgspec

from app.broker.refusal import Reason, RefusedError, ambiguous_pool, unknown_pool
from app.core.agents import AgentPod, PoolDirectory, PoolInfo
from app.model.meta import NamespacedName
from app.proto import velda_pb2

PATIENCE = 5.0
"""Seconds that the watch has to show a pod, or its address, that an agent is quicker than."""


class Admitted(msgspec.Struct, frozen=True):
    """An agent that may join, and the address that its sessions are reached at."""

    pool: NamespacedName
    name: str
    address: str


class _Pod(NamedTuple):
    pool: NamespacedName
    name: str


class Gatekeeper:
    """Admits agents. ``pod_changed`` must be called for each changed pod: who waits for it looks again."""

    def __init__(self, pools: PoolDirectory, *, authentication: Literal["pod", "none"]) -> None:
        self._pools = pools
        self._authentication = authentication
        self._waiting: dict[_Pod, list[asyncio.Event]] = {}

    def pod_changed(self, pool: NamespacedName, name: str) -> None:
        for event in self._waiting.get(_Pod(pool, name), ()):
            event.set()

    async def admit(self, identity: velda_pb2.AgentIdentity, peer: str) -> Admitted:
        """``peer`` as gRPC writes it; raises RefusedError."""
        if not identity.agent_id:
            raise RefusedError(Reason.BAD_REQUEST, "agent_identity.agent_id must be set")
        candidates = self._pools.find_pools(identity.pool)
        if not candidates:
            raise unknown_pool(identity.pool)
        if self._authentication == "none":
            return self._believe(identity, candidates, peer)
        pod = await self._find_pod(identity, candidates)
        if pod.terminating:
            raise RefusedError(Reason.NOT_A_WORKER, f"pod {pod.pool.namespace}/{pod.name} is being deleted")
        if peer_address(peer) != _parse(pod.ip):
            where = f"pod {pod.pool.namespace}/{pod.name} has the address {pod.ip}"
            raise RefusedError(Reason.NOT_A_WORKER, f"{where}, the connection comes from {peer_address(peer) or peer}")
        return Admitted(pod.pool, pod.name, pod.ip)

    def _believe(self, identity: velda_pb2.AgentIdentity, candidates: list[PoolInfo], peer: str) -> Admitted:
        having = [info for info in candidates if self._pools.find_pod(info.key, identity.agent_id)]
        chosen = having if len(candidates) > 1 else candidates
        if len(chosen) != 1:
            raise ambiguous_pool(identity.pool, candidates)
        return Admitted(chosen[0].key, identity.agent_id, identity.ip_address or str(peer_address(peer) or ""))

    async def _find_pod(self, identity: velda_pb2.AgentIdentity, candidates: Sequence[PoolInfo]) -> AgentPod:
        """The pod, once it has an address; agents are sometimes quicker than the watch."""
        names = [_Pod(info.key, identity.agent_id) for info in candidates]
        with self._watching(names) as changed:
            try:
                async with asyncio.timeout(PATIENCE):
                    while True:
                        found = [pod for name in names if (pod := self._pools.find_pod(*name)) and pod.ip]
                        if len(found) > 1:
                            raise ambiguous_pool(identity.pool, list(candidates))
                        if found:
                            return found[0]
                        changed.clear()
                        await changed.wait()
            except TimeoutError:
                message = f'pool "{identity.pool}" has no pod "{identity.agent_id}" with an address'
                raise RefusedError(Reason.NOT_A_WORKER, message) from None

    @contextmanager
    def _watching(self, names: Sequence[_Pod]) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        for name in names:
            self._waiting.setdefault(name, []).append(event)
        try:
            yield event
        finally:
            for name in names:
                events = self._waiting[name]
                events.remove(event)
                if not events:
                    del self._waiting[name]


def peer_address(peer: str) -> IPv4Address | IPv6Address | None:
    """The address in gRPC's name of a peer (``ipv4:10.0.0.1:5000``, ``ipv6:%5B::1%5D:5000``); None if it has none."""
    family, _, rest = unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return None
    return _parse(rest.rpartition(":")[0].strip("[]"))


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """None for what is no address; an IPv4 address in IPv6 clothes is that IPv4 address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
