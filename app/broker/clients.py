"""What clients can ask of the broker, over gRPC and over REST alike: may they, and if so, the registry's answer.

A caller learns nothing of pools that it has no right to: it is told the same whether they exist or not.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from app.broker.access import Access, Caller, Credentials, Right
from app.broker.bounds import Bounds
from app.broker.refusal import Reason, RefusedError, ambiguous_pool, unknown_pool
from app.broker.registry import Registry
from app.broker.sessions import AboutNamed, Session, no_session, service_of, timestamp
from app.core.agents import AgentView, PoolDirectory, PoolInfo
from app.model.meta import NamespacedName
from app.proto import velda_pb2

WATCH_INTERVAL = 1.0
"""Seconds between two looks at a watched pool; a look reads memory only."""
ASKED_AT_ONCE = 16
"""Namespaces that the API server is asked about at one time for one call; others' calls need turns too."""

GET = Right("get", "")
LIST = Right("list", "")
WATCH = Right("watch", "")
START = Right("create", "", subresource="session")
END = Right("delete", "", subresource="session")


class Inside(NamedTuple):
    """A pool's agents by name, and its sessions; None for who may not list them."""

    agents: Mapping[str, AgentView]
    sessions: Sequence[Session] | None


class Clients:
    """The client calls, for one term of leadership. All raise RefusedError."""

    def __init__(self, registry: Registry, pools: PoolDirectory, access: Access, bounds: Bounds) -> None:
        self._registry = registry
        self._bounds = bounds
        self._pools = pools
        self._access = access

    async def identify(self, credentials: Credentials) -> Caller:
        """Who is calling; the calls themselves ask what that one may do."""
        return await self._access.identify(credentials)

    # Sessions.

    async def request_session(self, caller: Caller, request: velda_pb2.SessionRequest) -> velda_pb2.ExecutionStatus:
        """Returns once the session runs; a caller that is cancelled gives up its place in the queue."""
        self._bounds.check_session(request)
        if pool := self._registry.meant(request):
            if not await self._access.allows(caller, START.of(pool)):
                raise _forbidden(caller, START)  # without a word of where it runs
        else:
            pool = (await self._pool(caller, START, request.pool)).key
        outcome: asyncio.Future[velda_pb2.ExecutionStatus | RefusedError] = asyncio.Future()

        def done(result: velda_pb2.ExecutionStatus | RefusedError) -> None:
            if not outcome.done():
                outcome.set_result(result)

        with self._bounds.waiting(pool, caller.username or request.user):
            leave = self._registry.request(request, done, pool=pool, user=caller.username)
            try:
                result = await outcome
            finally:
                leave()
        if isinstance(result, RefusedError):
            raise result
        return result

    async def kill_session(self, caller: Caller, request: velda_pb2.KillSessionRequest) -> None:
        """It, or each session of the service, is asked to end."""
        await self._require_of_all(caller, END, request)
        self._registry.kill(request)

    async def set_tag(self, caller: Caller, request: velda_pb2.SetTagRequest) -> None:
        """Needs the right to start sessions there."""
        await self._require_of_all(caller, START, request)
        self._registry.set_tags(request, check=self._bounds.check_tags)

    async def list_sessions(
        self, caller: Caller, request: velda_pb2.ListSessionsRequest
    ) -> velda_pb2.ListSessionsResponse:
        """Those of an instance in the namespaces whose pools the caller may list."""
        instance_id, service = request.instance_id, request.service_name
        there = self._registry.pools_with_sessions(instance_id=instance_id, service_name=service)
        allowed = await self._namespaces(caller, {pool.namespace for pool in there})
        found = self._registry.list(
            instance_id=instance_id, service_name=service, shown=lambda pool: pool.namespace in allowed
        )
        return velda_pb2.ListSessionsResponse(sessions=found)

    # Pools. There is one region: that of a request is not read.

    async def list_pools(self, caller: Caller, request: velda_pb2.ListPoolsRequest) -> velda_pb2.ListPoolsResponse:
        """Those of the namespaces whose pools the caller may list; refused if there is none.

        A namespace that the request names needs no pool.
        """
        pools = self._pools.pools()
        asked = {request.namespace} if request.namespace else {info.key.namespace for info in pools}
        allowed = await self._namespaces(caller, asked)
        wanted = Right("list", request.namespace)
        if not allowed and not await self._access.allows(caller, wanted):
            raise _forbidden(caller, wanted, "" if request.namespace else "; name one whose pools you may list")
        named = Counter(info.key.name for info in pools)
        shown = [_describe(p, alone=named[p.key.name] == 1) for p in pools if p.key.namespace in allowed]
        return velda_pb2.ListPoolsResponse(pools=shown)

    async def get_pool(self, caller: Caller, request: velda_pb2.GetPoolRequest) -> velda_pb2.GetPoolResponse:
        info = await self._pool(caller, GET, request.pool)
        alone = len(self._pools.find_pools(info.key.name)) == 1
        return velda_pb2.GetPoolResponse(pool=_describe(info, alone=alone))

    async def watch_pool(
        self, caller: Caller, request: velda_pb2.WatchPoolStatusRequest
    ) -> AsyncIterator[velda_pb2.PoolStatusNotification]:
        """The status as it is, then each change, until the pool is gone (NOT_FOUND) or the server stops."""
        shown = None
        with self._bounds.watching():
            while True:
                self._registry.require_serving()
                status = _autoscaler_status(await self._pool(caller, WATCH, request.pool))
                if status != shown:
                    shown = status
                    yield velda_pb2.PoolStatusNotification(pool=request.pool, autoscaler_status=status)
                await asyncio.sleep(WATCH_INTERVAL)

    # What the dashboard shows.

    def watching(self) -> AbstractContextManager[None]:
        """One of the places for those who watch."""
        return self._bounds.watching()

    async def listable(self, caller: Caller, namespaces: set[str]) -> set[str]:
        """Those whose pools the caller may list; refused if that is none of them."""
        self._registry.require_serving()
        allowed = await self._namespaces(caller, namespaces)
        if namespaces and not allowed:
            raise _forbidden(caller, LIST)
        return allowed

    async def may_list_inside(self, caller: Caller, pool: NamespacedName) -> bool:
        """For who may watch the pool: whether its sessions are listed too."""
        self._registry.require_serving()
        await self._pool(caller, WATCH, str(pool))
        return await self._access.allows(caller, Right("list", pool.namespace))

    def inside(self, pool: NamespacedName, *, listed: bool) -> Inside:
        """Once its reader's rights are known; sessions are for who may list them."""
        agents = self._registry.pool_agents(pool).agents
        return Inside(agents=agents, sessions=self._registry.sessions_of(pool) if listed else None)

    # Rights.

    async def _pool(self, caller: Caller, right: Right, name: str) -> PoolInfo:
        """The one pool that the name can mean for this caller."""
        found = self._pools.find_pools(name)
        mine = [info for info in found if await self._access.allows(caller, right.of(info.key))]
        if len(mine) > 1:
            raise ambiguous_pool(name, mine)
        if mine:
            return mine[0]
        namespace, slash, bare = name.rpartition("/")
        asked = right.of(NamespacedName(namespace, bare)) if slash else right
        if not found and await self._access.allows(caller, asked):
            raise unknown_pool(name)
        raise _forbidden(caller, right.of(NamespacedName(namespace, bare)))

    async def _require_of_all(self, caller: Caller, right: Right, request: AboutNamed) -> None:
        """The right to the pool of each session that the request means.

        What has come meanwhile is asked about too, so that the next step may act on all.
        """
        allowed: set[NamespacedName] = set()
        while new := self._registry.pools_of(request) - allowed:
            for pool in new:
                if not await self._access.allows(caller, right.of(pool)):
                    raise await self._hidden(caller, right.of(pool), request)
            allowed |= new

    async def _hidden(self, caller: Caller, right: Right, request: AboutNamed) -> RefusedError:
        """To whom sessions are not listed there, they are none."""
        if await self._access.allows(caller, Right("list", right.namespace)):
            return _forbidden(caller, right)
        return no_session(
            instance_id=request.instance_id, session_id=request.session_id, service_name=service_of(request)
        )

    async def _namespaces(self, caller: Caller, namespaces: set[str]) -> set[str]:
        """Those whose pools the caller may list."""
        if not namespaces or await self._access.allows(caller, LIST):
            return namespaces
        turns = asyncio.Semaphore(ASKED_AT_ONCE)

        async def may_list(name: str) -> bool:
            async with turns:
                return await self._access.allows(caller, Right("list", name))

        answers = await asyncio.gather(*(may_list(name) for name in namespaces))
        return {name for name, allowed in zip(namespaces, answers, strict=True) if allowed}


def _forbidden(caller: Caller, right: Right, hint: str = "") -> RefusedError:
    return RefusedError(Reason.FORBIDDEN, f'user "{caller.username}" may not {right}{hint}')


def _describe(info: PoolInfo, *, alone: bool) -> velda_pb2.Pool:
    """By the shortest name that means this pool alone (``alone``: of that name); the description is its whole name."""
    name = info.key.name if alone else str(info.key)
    return velda_pb2.Pool(name=name, description=str(info.key), autoscaler_status=_autoscaler_status(info))


def _autoscaler_status(info: PoolInfo) -> velda_pb2.PoolAutoscalerStatus:
    status = velda_pb2.PoolAutoscalerStatus(last_allocation_error=info.allocation_error)
    if info.allocation_error_time is not None:
        status.last_allocation_error_time.CopyFrom(timestamp(info.allocation_error_time))
    return status
