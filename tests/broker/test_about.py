"""Health and reflection, asked by gRPC's own clients without credentials."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from app.broker.about import SERVICES
from app.proto import velda_pb2
from tests.broker.wire import Plane, serving
from tests.broker.world import CPU, Pools

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_a_leader_serves_and_says_when_it_stops(service: str) -> None:
    async with serving(Pools(CPU)) as plane:
        health = health_pb2_grpc.HealthStub(plane.channel)
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await health.Check(request)).status == SERVING
        watch = health.Watch(request)
        assert (await watch.read()).status == SERVING
        stopping = asyncio.create_task(plane.server.stop(30))
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        await stopping


async def test_a_service_that_there_is_not_is_not_found() -> None:
    async with serving(Pools(CPU)) as plane:
        health = health_pb2_grpc.HealthStub(plane.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="velda.Nothing"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def asked_of(port: int) -> None:
    """As grpcurl does; its client is a blocking one."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) >= set(SERVICES)
        pool = DescriptorPool(database)
        assert {service for service in SERVICES if pool.FindServiceByName(service)} == set(SERVICES)
        request = GetMessageClass(pool.FindMessageTypeByName("velda.SessionRequest"))(session_id="s", priority=7)
        assert velda_pb2.SessionRequest.FromString(request.SerializeToString()).priority == 7


async def test_a_client_can_learn_the_whole_protocol() -> None:
    async with serving(Pools(CPU)) as plane:
        await asyncio.to_thread(asked_of, plane.port)


async def answer(plane: Plane, **request: str) -> reflection_pb2.ServerReflectionResponse:
    call = reflection_pb2_grpc.ServerReflectionStub(plane.channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(**request))
    response: reflection_pb2.ServerReflectionResponse = await call.read()
    call.cancel()
    return response


async def test_what_else_the_process_knows_is_not_shown() -> None:
    async with serving(Pools(CPU)) as plane:
        response = await answer(plane, file_by_filename="google/protobuf/descriptor.proto")
        assert response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        response = await answer(plane, file_by_filename="google/protobuf/duration.proto")
        assert response.file_descriptor_response.file_descriptor_proto
