"""Golden encodings: protoc encodes, from a .proto written out of this table alone, what our modules must agree with."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

from app.proto import velda_pb2

DURATION, TIMESTAMP = "google.protobuf.Duration", "google.protobuf.Timestamp"
TAGS = "map<string,string>"
TABLE: dict[str, str] = {
    "AgentIdentity": "agent_id=1 string, hostname=2 string, pool=3 string, ip_address=4 string",
    "AgentUpdateRequest": "agent_identity=1 AgentIdentity, session_init_response=2 SessionInitResponse, "
    "session_completion=3 SessionCompletion, current_executions=4 repeated CurrentExecution, slots=5 int32",
    "AgentUpdateResponse": "session_request=1 SessionRequest, kill_session_request=2 KillSessionAgentRequest, "
    "server_info=3 ServerInfo",
    "ServerInfo": "version=1 string",
    "CurrentExecution": "request=1 SessionRequest, response=2 SessionInitResponse",
    "SessionInitResponse": "instance_id=1 int64, session_id=2 string, success=3 bool, port=4 int32, host_key=5 bytes",
    "SessionCompletion": "instance_id=1 int64, session_id=2 string, batch_task_result=3 BatchTaskResult, "
    "checkpointed=4 bool",
    "BatchTaskResult": "",
    "KillSessionAgentRequest": "instance_id=1 int64, session_id=2 string, force=3 bool",
    "SessionRequest": "session_id=1 string, instance_id=2 int64, user=3 string, pool=4 string, "
    f"init_timeout=5 {DURATION}, idle_timeout=6 {DURATION}, priority=8 int64, workload=9 Workload, "
    "labels=10 repeated string, task_id=11 string, service_name=12 string, force_new_session=13 bool, "
    "dependencies=14 repeated Dependency, connection_finish_action=15 ConnectionFinishAction, checkpointed=16 bool, "
    f"agent_session_info=17 AgentSessionInfo, disallow_new_session=18 bool, tags=19 {TAGS}, "
    "writable_dirs=20 repeated string, snapshot_name=21 string",
    "Workload": "",
    "AgentSessionInfo": "nfs_mount=1 NfsMount",
    "NfsMount": "nfs_server=1 string, nfs_path=2 string, nfs_snapshot_path=3 string",
    "Dependency": "upstream_task_id=1 string, type=2 DependencyType",
    "ExecutionStatus": "session_id=1 string, execution_id=2 string, status=3 Status, task_id=4 string, "
    f"ssh_connection=5 SshConnection, started_at=6 {TIMESTAMP}",
    "SshConnection": "host=1 string, port=2 int32, host_key=3 bytes, jump_host=4 string, jump_host_key=5 bytes",
    "KillSessionRequest": "instance_id=1 int64, session_id=2 string, service_name=3 string, force=4 bool",
    "ListSessionsRequest": "instance_id=1 int64, service_name=2 string",
    "ListSessionsResponse": "sessions=1 repeated Session",
    "Session": "session_id=1 string, user=2 string, pool=3 string, instance_id=4 int64, status=5 Status, "
    f"service_name=6 string, labels=7 repeated string, internal_ip_address=8 string, tags=9 {TAGS}",
    "SetTagRequest": f"instance_id=1 int64, session_id=2 string, tags=3 {TAGS}",
    "SetTagResponse": "",
    "ListPoolsRequest": "region=32 string, namespace=1000 string",
    "ListPoolsResponse": "pools=1 repeated Pool",
    "GetPoolRequest": "pool=1 string, region=32 string",
    "GetPoolResponse": "pool=1 Pool",
    "WatchPoolStatusRequest": "pool=1 string, region_id=2 int32",
    "Pool": "name=1 string, description=2 string, autoscaler_status=3 PoolAutoscalerStatus",
    "PoolAutoscalerStatus": f"last_allocation_error=1 string, last_allocation_error_time=2 {TIMESTAMP}",
    "PoolStatusNotification": "pool=1 string, autoscaler_status=2 PoolAutoscalerStatus",
}
ENUMS = {
    "ConnectionFinishAction": "UNSPECIFIED TERMINATE KEEP_ALIVE CHECKPOINT",
    "DependencyType": "UNSPECIFIED SUCCESS FAILURE",
    "Status": "UNSPECIFIED QUEUEING PENDING RUNNING TERMINATED STALE CHECKPOINTED WAITING_FOR_OTHER_SHARDS CANCELLED",
}
NESTED: dict[str, type[Message]] = {
    "NfsMount": velda_pb2.AgentSessionInfo.NfsMount,
    "SshConnection": velda_pb2.ExecutionStatus.SshConnection,
}
"""What we have inside of another message; on the wire there is no difference."""
SCALARS = {
    "string": '"%d é"',
    "bytes": '"\\%03o\\377"',
    "int32": "-%d",
    "int64": "-900000000000000%02d",
    "bool": "true",
}


def fields(message: str) -> list[tuple[str, int, str]]:
    """Name, number and type (``repeated X`` as it is)."""
    written = [field.strip().partition(" ") for field in TABLE[message].split(", ") if field]
    return [(name.partition("=")[0], int(name.partition("=")[2]), kind) for name, _, kind in written]


def sample(message: str) -> str:
    """Each field set, in protobuf's text format, to a value with its number in it; a repeated one twice."""
    return " ".join(
        f"{name}: {value(kind.removeprefix('repeated '), number)}"
        for name, number, kind in fields(message)
        for _ in range(1 + kind.startswith("repeated "))
    )


def value(kind: str, number: int) -> str:
    if kind in TABLE:
        return f"{{ {sample(kind)} }}"
    if kind in (DURATION, TIMESTAMP):
        return f"{{ seconds: {number} nanos: 5 }}"
    if kind == TAGS:
        return '{ key: "k" value: "v" }'
    if kind in ENUMS:
        return str(len(ENUMS[kind].split()) - 1)
    return SCALARS[kind] % number if "%" in SCALARS[kind] else SCALARS[kind]


@pytest.fixture(scope="module")
def proto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = ['syntax = "proto3";', "package velda;"]
    lines += [f'import "google/protobuf/{name}.proto";' for name in ("duration", "timestamp")]
    for enum, values in ENUMS.items():
        numbered = (f"{enum}_{name} = {number};" for number, name in enumerate(values.split()))
        lines.append(f"enum {enum} {{ {' '.join(numbered)} }}")
    for message in TABLE:
        declared = (f"{kind} {name} = {number};" for name, number, kind in fields(message))
        lines.append(f"message {message} {{ {' '.join(declared)} }}")
    path = tmp_path_factory.mktemp("proto") / "table.proto"
    path.write_text("\n".join(lines))
    return path


def encoded(proto: Path, message: str, text: str) -> bytes:
    include = files("grpc_tools") / "_proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}", f"-I{include}"]
    command += [f"--encode=velda.{message}", proto.name]
    return subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout


def ours(message: str) -> type[Message]:
    found: type[Message] = NESTED.get(message) or getattr(velda_pb2, message)
    return found


@pytest.mark.parametrize("message", TABLE)
def test_our_encoding_is_that_of_protoc(proto: Path, message: str) -> None:
    text = sample(message)
    golden = encoded(proto, message, text)
    assert bool(golden) == bool(TABLE[message])
    expected = text_format.Parse(text, ours(message)())
    assert expected.SerializeToString(deterministic=True) == golden
    assert ours(message).FromString(golden) == expected


def test_the_table_has_every_message() -> None:
    assert set(TABLE) == {*velda_pb2.DESCRIPTOR.message_types_by_name, *NESTED}
