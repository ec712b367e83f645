"""The two gRPC services: each call translated for the registry or the pools, each refusal answered by its status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from app.broker.identity import Gatekeeper
from app.broker.refusal import RefusedError, one_pool
from app.broker.registry import Registry
from app.broker.sessions import timestamp
from app.broker.stream import AgentStream
from app.core.agents import PoolDirectory, PoolInfo
from app.obs import metrics
from app.proto import velda_pb2, velda_pb2_grpc

WATCH_INTERVAL = 1.0
"""Seconds between two looks at a watched pool; a look reads memory only."""

Context = grpc.aio.ServicerContext[Any, Any]


@asynccontextmanager
async def _refusals(context: Context) -> AsyncIterator[None]:
    """Answer what is refused in the block with its status."""
    try:
        yield
    except RefusedError as refused:
        metrics.BROKER_REFUSALS.labels(refused.reason.label).inc()
        await context.abort(grpc.StatusCode[refused.reason.code], refused.message)


class BrokerService(velda_pb2_grpc.BrokerServiceServicer):
    """What agents and clients call about sessions."""

    def __init__(self, registry: Registry, gatekeeper: Gatekeeper) -> None:
        self._registry = registry
        self._gatekeeper = gatekeeper

    async def AgentUpdate(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]
        """Reads and writes through the context, where the stub has an iterator of answers."""
        async with _refusals(context):
            await AgentStream(self._registry, self._gatekeeper, context).run()

    async def RequestSession(self, request: velda_pb2.SessionRequest, context: Context) -> velda_pb2.ExecutionStatus:
        outcome: asyncio.Future[velda_pb2.ExecutionStatus | RefusedError] = asyncio.Future()

        def done(result: velda_pb2.ExecutionStatus | RefusedError) -> None:
            if not outcome.done():
                outcome.set_result(result)

        async with _refusals(context):
            leave = self._registry.request(request, done)
            try:
                result = await outcome
            finally:
                leave()
            if isinstance(result, RefusedError):
                raise result
            return result

    async def KillSession(self, request: velda_pb2.KillSessionRequest, context: Context) -> Empty:
        async with _refusals(context):
            self._registry.kill(request)
        return Empty()

    async def ListSessions(
        self, request: velda_pb2.ListSessionsRequest, context: Context
    ) -> velda_pb2.ListSessionsResponse:
        sessions = self._registry.list(instance_id=request.instance_id, service_name=request.service_name)
        return velda_pb2.ListSessionsResponse(sessions=sessions)

    async def SetTag(self, request: velda_pb2.SetTagRequest, context: Context) -> velda_pb2.SetTagResponse:
        async with _refusals(context):
            self._registry.set_tags(request)
        return velda_pb2.SetTagResponse()


class PoolManagerService(velda_pb2_grpc.PoolManagerServiceServicer):
    """What clients may know of the pools. There is one region: that of a request is not read."""

    def __init__(self, pools: PoolDirectory) -> None:
        self._pools = pools

    async def ListPools(self, request: velda_pb2.ListPoolsRequest, context: Context) -> velda_pb2.ListPoolsResponse:
        return velda_pb2.ListPoolsResponse(pools=[self._describe(info) for info in self._pools.pools()])

    async def GetPool(self, request: velda_pb2.GetPoolRequest, context: Context) -> velda_pb2.GetPoolResponse:
        async with _refusals(context):
            return velda_pb2.GetPoolResponse(pool=self._describe(one_pool(self._pools, request.pool)))

    async def WatchPoolStatus(
        self, request: velda_pb2.WatchPoolStatusRequest, context: Context
    ) -> AsyncIterator[velda_pb2.PoolStatusNotification]:
        """The status as it is, then each change, until the pool is gone (NOT_FOUND)."""
        shown = None
        async with _refusals(context):
            while True:
                status = _autoscaler_status(one_pool(self._pools, request.pool))
                if status != shown:
                    shown = status
                    yield velda_pb2.PoolStatusNotification(pool=request.pool, autoscaler_status=status)
                await asyncio.sleep(WATCH_INTERVAL)

    def _describe(self, info: PoolInfo) -> velda_pb2.Pool:
        """By the shortest name that means this pool alone."""
        alone = len(self._pools.find_pools(info.key.name)) == 1
        name = info.key.name if alone else str(info.key)
        return velda_pb2.Pool(name=name, autoscaler_status=_autoscaler_status(info))


def _autoscaler_status(info: PoolInfo) -> velda_pb2.PoolAutoscalerStatus:
    status = velda_pb2.PoolAutoscalerStatus(last_allocation_error=info.allocation_error)
    if info.allocation_error_time is not None:
        status.last_allocation_error_time.CopyFrom(timestamp(info.allocation_error_time))
    return status
