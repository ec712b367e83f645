"""The contract with agents and clients that exist already: numbers, types, and what passes through unread."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.internal.encoder import TagBytes
from google.protobuf.message import Message

from app.proto import generate, velda_pb2
from tests.broker.wire import agent, serving
from tests.broker.world import CPU, Pools

FIELDS: dict[type[Message], dict[str, int]] = {
    velda_pb2.AgentIdentity: {"agent_id": 1, "hostname": 2, "pool": 3, "ip_address": 4},
    velda_pb2.AgentUpdateRequest: {
        "agent_identity": 1,
        "session_init_response": 2,
        "session_completion": 3,
        "current_executions": 4,
        "slots": 5,
    },
    velda_pb2.AgentUpdateResponse: {"session_request": 1, "kill_session_request": 2, "server_info": 3},
    velda_pb2.ServerInfo: {"version": 1},
    velda_pb2.CurrentExecution: {"request": 1, "response": 2},
    velda_pb2.SessionInitResponse: {"instance_id": 1, "session_id": 2, "success": 3, "port": 4, "host_key": 5},
    velda_pb2.SessionCompletion: {"instance_id": 1, "session_id": 2, "batch_task_result": 3, "checkpointed": 4},
    velda_pb2.KillSessionAgentRequest: {"instance_id": 1, "session_id": 2, "force": 3},
    velda_pb2.SessionRequest: {
        "session_id": 1,
        "instance_id": 2,
        "user": 3,
        "pool": 4,
        "init_timeout": 5,
        "idle_timeout": 6,
        "priority": 8,
        "workload": 9,
        "labels": 10,
        "task_id": 11,
        "service_name": 12,
        "force_new_session": 13,
        "dependencies": 14,
        "connection_finish_action": 15,
        "checkpointed": 16,
        "agent_session_info": 17,
        "disallow_new_session": 18,
        "tags": 19,
        "writable_dirs": 20,
        "snapshot_name": 21,
    },
    velda_pb2.ExecutionStatus: {
        "session_id": 1,
        "execution_id": 2,
        "status": 3,
        "task_id": 4,
        "ssh_connection": 5,
        "started_at": 6,
    },
    velda_pb2.ExecutionStatus.SshConnection: {
        "host": 1,
        "port": 2,
        "host_key": 3,
        "jump_host": 4,
        "jump_host_key": 5,
    },
    velda_pb2.KillSessionRequest: {"instance_id": 1, "session_id": 2, "service_name": 3, "force": 4},
    velda_pb2.Session: {
        "session_id": 1,
        "user": 2,
        "pool": 3,
        "instance_id": 4,
        "status": 5,
        "service_name": 6,
        "labels": 7,
        "internal_ip_address": 8,
        "tags": 9,
    },
    velda_pb2.SetTagRequest: {"instance_id": 1, "session_id": 2, "tags": 3},
    velda_pb2.ListPoolsRequest: {"region": 32, "namespace": 1000},
    velda_pb2.GetPoolRequest: {"pool": 1, "region": 32},
    velda_pb2.WatchPoolStatusRequest: {"pool": 1, "region_id": 2},
    velda_pb2.Pool: {"name": 1, "description": 2, "autoscaler_status": 3},
    velda_pb2.PoolAutoscalerStatus: {"last_allocation_error": 1, "last_allocation_error_time": 2},
    velda_pb2.PoolStatusNotification: {"pool": 1, "autoscaler_status": 2},
}


@pytest.mark.parametrize("message", FIELDS, ids=lambda message: message.DESCRIPTOR.full_name)
def test_fields_have_the_numbers_of_the_protocol(message: type[Message]) -> None:
    assert {field.name: field.number for field in message.DESCRIPTOR.fields} == FIELDS[message]


def test_integers_have_the_width_of_the_protocol() -> None:
    descriptors = [message.DESCRIPTOR for message in FIELDS]
    wide = {f"{d.name}.{f.name}" for d in descriptors for f in d.fields if f.type == FieldDescriptor.TYPE_INT64}
    narrow = {f"{d.name}.{f.name}" for d in descriptors for f in d.fields if f.type == FieldDescriptor.TYPE_INT32}
    assert {name.partition(".")[2] for name in wide} == {"instance_id", "priority"}
    assert narrow == {
        "AgentUpdateRequest.slots",
        "SessionInitResponse.port",
        "SshConnection.port",
        "WatchPoolStatusRequest.region_id",
    }


def test_a_status_has_the_number_and_the_name_of_the_protocol() -> None:
    enum: EnumDescriptor = velda_pb2.ExecutionStatus.Status.DESCRIPTOR
    assert [(value.name, value.number) for value in enum.values] == [
        ("STATUS_UNSPECIFIED", 0),
        ("STATUS_QUEUEING", 1),
        ("STATUS_PENDING", 2),
        ("STATUS_RUNNING", 3),
        ("STATUS_TERMINATED", 4),
        ("STATUS_STALE", 5),
        ("STATUS_CHECKPOINTED", 6),
        ("STATUS_WAITING_FOR_OTHER_SHARDS", 7),
        ("STATUS_CANCELLED", 8),
    ]


def test_what_the_server_does_not_know_survives() -> None:
    unknown = TagBytes(40, 2) + b"\x03abc"
    workload = TagBytes(9, 2) + b"\x04" + TagBytes(1, 2) + b"\x02ls"
    request = velda_pb2.SessionRequest.FromString(unknown + workload)
    answer = velda_pb2.AgentUpdateResponse(session_request=request).SerializeToString()
    assert unknown in answer
    assert workload in answer


async def test_what_nobody_here_knows_reaches_the_agent_from_the_client() -> None:
    unknown = TagBytes(40, 2) + b"\x03abc"
    known = velda_pb2.SessionRequest(session_id="s", instance_id=1, pool="cpu").SerializeToString()
    request = velda_pb2.SessionRequest.FromString(known + unknown)
    async with serving(Pools(CPU)) as plane, agent(plane) as wire:
        asking = asyncio.ensure_future(plane.broker.RequestSession(request))
        assert unknown in (await wire.start()).SerializeToString()
        await asking


def test_the_generated_modules_are_up_to_date(tmp_path: Path) -> None:
    generate.generate(tmp_path)
    for fresh in (tmp_path / "app" / "proto").iterdir():
        committed = generate.ROOT / "app" / "proto" / fresh.name
        assert committed.read_text() == fresh.read_text(), "run: python -m app.proto.generate"
