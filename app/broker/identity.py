"""Is the agent who it says it is: under the name of a live pod of its pool, and with the proof that is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from app.broker.access import Credentials
from app.broker.agents import Strength
from app.broker.proofs import PodTokens, Review, review_none, verify_certificate
from app.broker.refusal import Reason, RefusedError, ambiguous_pool, unknown_pool
from app.core.agents import AgentPod, PoolDirectory, PoolInfo
from app.core.proofs import CERTIFICATE_FILE, TOKEN_FILE
from app.model.meta import NamespacedName
from app.proto import velda_pb2
from app.settings import AgentAuthentication

PATIENCE = 5.0
"""Seconds that the watch has to show a pod, or its address, that an agent is quicker than."""
NAME_LIMIT = 253
"""Characters of a pod's name, and of a namespace's or a pool's."""

NO_CREDENTIALS = Credentials()


class Admitted(msgspec.Struct, frozen=True):
    """An agent that may join, the address that its sessions are reached at, and how well it has proved itself."""

    pool: NamespacedName
    name: str
    address: str
    strength: Strength = Strength.NONE


class _Pod(NamedTuple):
    pool: NamespacedName
    name: str


class Gatekeeper:
    """Admits agents. ``pod_changed`` must be called for each changed pod: who waits for it looks again."""

    def __init__(
        self,
        pools: PoolDirectory,
        *,
        authentication: AgentAuthentication,
        review: Review = review_none,
        bundle: Callable[[], bytes] = bytes,
    ) -> None:
        """``review`` tells whose a token is, ``bundle`` has the CAs (PEM) of agents' certificates."""
        self._pools = pools
        self._authentication = authentication
        self._tokens = PodTokens(review)
        self._bundle = bundle
        self._waiting: dict[_Pod, list[asyncio.Event]] = {}

    def pod_changed(self, pool: NamespacedName, name: str) -> None:
        for event in self._waiting.get(_Pod(pool, name), ()):
            event.set()

    async def admit(
        self, identity: velda_pb2.AgentIdentity, peer: str, credentials: Credentials = NO_CREDENTIALS
    ) -> Admitted:
        """``peer`` as gRPC writes it; raises RefusedError."""
        if not 0 < len(identity.agent_id) <= NAME_LIMIT:
            message = f"agent_identity.agent_id must be the pod's name, 1 to {NAME_LIMIT} characters"
            raise RefusedError(Reason.BAD_REQUEST, message)
        if len(identity.pool) > 2 * NAME_LIMIT + 1:
            raise RefusedError(Reason.BAD_REQUEST, "agent_identity.pool must be NAME or NAMESPACE/NAME of an AgentPool")
        candidates = self._pools.find_pools(identity.pool)
        if not candidates:
            raise unknown_pool(identity.pool)
        if self._authentication == "none":
            return self._believe(identity, candidates, peer)
        pod = await self._find_pod(identity, candidates)
        strength = await self._prove(pod, peer, credentials)
        now = self._pools.find_pod(pod.pool, pod.name)
        if now is None or now.uid != pod.uid or now.terminating:
            raise RefusedError(Reason.NOT_A_WORKER, f"{pod} is being deleted or has ended")
        return Admitted(pod.pool, pod.name, pod.ip, strength)

    async def _prove(self, pod: AgentPod, peer: str, credentials: Credentials) -> Strength:
        """The strongest of what was shown. All of it must be true, and what is asked for must be there."""
        proved = Strength.NONE
        if self._authentication == "pod":
            proved = prove_address(pod, peer)
        if credentials.token:
            await self._tokens.verify(credentials.token, pod)
            proved = Strength.TOKEN
        if credentials.certificate:
            verify_certificate(credentials.certificate, pod, bundle=self._bundle())
            proved = Strength.CERTIFICATE
        if self._authentication == "token" and proved < Strength.TOKEN:
            message = f"{pod} must send the token that it has at {TOKEN_FILE} as 'authorization: Bearer TOKEN'"
            raise RefusedError(Reason.UNAUTHENTICATED, message)
        if self._authentication == "mtls" and proved < Strength.CERTIFICATE:
            message = f"{pod} must show the certificate that it has at {CERTIFICATE_FILE}"
            raise RefusedError(Reason.UNAUTHENTICATED, message)
        return proved

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


def prove_address(pod: AgentPod, peer: str) -> Strength:
    """Raises RefusedError if the connection does not come from one of the pod's addresses."""
    address = peer_address(peer)
    own = (pod.ip, *pod.more_ips)
    if address is None or address not in map(_parse, own):
        message = f"{pod} has the address {' or '.join(own)}, the connection comes from {address or peer}"
        raise RefusedError(Reason.NOT_A_WORKER, message)
    return Strength.HOST_ADDRESS if pod.host_network else Strength.ADDRESS


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
