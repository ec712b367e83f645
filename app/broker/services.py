"""The two gRPC services: each call passed on with its caller, each refusal answered by its status."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from app.broker.access import Caller, Credentials, bearer
from app.broker.bounds import Bounds
from app.broker.clients import Clients
from app.broker.handshakes import handshakes
from app.broker.identity import Gatekeeper
from app.broker.refusal import RefusedError
from app.broker.registry import Registry
from app.broker.reports import reports
from app.broker.stream import AgentStream
from app.proto import velda_pb2, velda_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


@asynccontextmanager
async def _refusals(context: Context, call: str) -> AsyncIterator[None]:
    """Answer what is refused in the block with its status, and what fails there without a word of why."""
    handshakes.called(context.peer())
    try:
        yield
        return
    except RefusedError as error:
        reports.refused(error, call=call, peer=context.peer())
        refused = error
    except grpc.aio.BaseError:
        raise  # the connection's end: there is nobody to answer
    except Exception as error:
        refused = reports.failed(error, call=call, peer=context.peer())
    await context.abort(grpc.StatusCode[refused.reason.code], refused.message)


async def _caller(clients: Clients, context: Context) -> Caller:
    """Raises RefusedError."""
    return await clients.identify(_credentials(context))


def _credentials(context: Context) -> Credentials:
    """By the metadata ``authorization: Bearer TOKEN``, as HTTP has it."""
    metadata = dict(context.invocation_metadata() or ())
    return Credentials(token=bearer(str(metadata.get("authorization", ""))))


def _certificate(context: Context) -> bytes:
    """That which the peer's TLS has shown (DER), verified by the CAs that the port trusts: those of agents."""
    pem = b"".join(context.auth_context().get("x509_pem_cert", ()))
    return ssl.PEM_cert_to_DER_cert(pem.decode()) if pem else b""


class BrokerService(velda_pb2_grpc.BrokerServiceServicer):
    """What agents and clients call about sessions."""

    def __init__(self, registry: Registry, gatekeeper: Gatekeeper, clients: Clients, bounds: Bounds) -> None:
        self._registry = registry
        self._bounds = bounds
        self._gatekeeper = gatekeeper
        self._clients = clients

    async def AgentUpdate(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]
        """Reads and writes through the context, where the stub has an iterator of answers."""
        async with _refusals(context, "AgentUpdate"):
            shown = Credentials(token=_credentials(context).token, certificate=_certificate(context))
            await AgentStream(self._registry, self._gatekeeper, context, shown, bounds=self._bounds).run()

    async def RequestSession(self, request: velda_pb2.SessionRequest, context: Context) -> velda_pb2.ExecutionStatus:
        async with _refusals(context, "RequestSession"):
            return await self._clients.request_session(await _caller(self._clients, context), request)

    async def KillSession(self, request: velda_pb2.KillSessionRequest, context: Context) -> Empty:
        async with _refusals(context, "KillSession"):
            await self._clients.kill_session(await _caller(self._clients, context), request)
        return Empty()

    async def ListSessions(
        self, request: velda_pb2.ListSessionsRequest, context: Context
    ) -> velda_pb2.ListSessionsResponse:
        async with _refusals(context, "ListSessions"):
            return await self._clients.list_sessions(await _caller(self._clients, context), request)

    async def SetTag(self, request: velda_pb2.SetTagRequest, context: Context) -> velda_pb2.SetTagResponse:
        async with _refusals(context, "SetTag"):
            await self._clients.set_tag(await _caller(self._clients, context), request)
        return velda_pb2.SetTagResponse()


class PoolManagerService(velda_pb2_grpc.PoolManagerServiceServicer):
    """What clients may know of the pools."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def ListPools(self, request: velda_pb2.ListPoolsRequest, context: Context) -> velda_pb2.ListPoolsResponse:
        async with _refusals(context, "ListPools"):
            return await self._clients.list_pools(await _caller(self._clients, context), request)

    async def GetPool(self, request: velda_pb2.GetPoolRequest, context: Context) -> velda_pb2.GetPoolResponse:
        async with _refusals(context, "GetPool"):
            return await self._clients.get_pool(await _caller(self._clients, context), request)

    async def WatchPoolStatus(
        self, request: velda_pb2.WatchPoolStatusRequest, context: Context
    ) -> AsyncIterator[velda_pb2.PoolStatusNotification]:
        async with _refusals(context, "WatchPoolStatus"):
            async for notification in self._clients.watch_pool(await _caller(self._clients, context), request):
                yield notification
