"""What anybody may ask of the gRPC server itself: whether it serves, and what its protocol is. No secret is in it."""

from __future__ import annotations

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from app.proto import velda_pb2

SERVICES = tuple(service.full_name for service in velda_pb2.DESCRIPTOR.services_by_name.values())


class About:
    """gRPC's health and reflection services. Of the server as a whole ("") and of each of our services."""

    def __init__(self) -> None:
        self._health = health.aio.HealthServicer()

    async def add_to(self, server: grpc.aio.Server) -> None:
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool=_published())

    async def stopping(self) -> None:
        """From now on: NOT_SERVING."""
        await self._health.enter_graceful_shutdown()


def _published() -> DescriptorPool:
    """The files of these services and what they import; the process knows others, which are none of a client's."""
    pool = DescriptorPool()

    def add(file: FileDescriptor) -> None:
        for imported in file.dependencies:
            add(imported)
        pool.AddSerializedFile(file.serialized_pb)

    for file in (velda_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        add(file)
    return pool
