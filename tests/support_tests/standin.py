"""A broker that only says who came and how they went: one line of JSON for each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from app.proto.velda_pb2 import AgentUpdateRequest, AgentUpdateResponse, ServerInfo
from app.proto.velda_pb2_grpc import BrokerServiceServicer, add_BrokerServiceServicer_to_server

_BREAK = 0.5
"""Seconds: when a connection breaks, the stream seems to end well just before gRPC cancels the call."""


class Broker(BrokerServiceServicer):
    async def AgentUpdate(  # noqa: N802  the protocol's name
        self, request_iterator: AsyncIterator[AgentUpdateRequest], context: Any
    ) -> AsyncIterator[AgentUpdateResponse]:
        agent = ""
        try:
            async for message in request_iterator:
                if not agent:
                    identity = message.agent_identity
                    agent = identity.agent_id
                    say(agent, "joined", peer=context.peer(), pool=identity.pool)
                    yield AgentUpdateResponse(server_info=ServerInfo(version="stand-in"))
            await asyncio.sleep(_BREAK)
            say(agent, "left")
        except asyncio.CancelledError:
            say(agent, "lost")
            raise


def say(agent: str, what: str, **more: str) -> None:
    print(json.dumps({"agent": agent, "what": what, **more}), flush=True)


async def main() -> None:
    server = grpc.aio.server()
    add_BrokerServiceServicer_to_server(Broker(), server)  # type: ignore[abstract]
    server.add_insecure_port("0.0.0.0:50051")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
