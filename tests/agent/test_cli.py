"""The agent as a process, as a container runs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from app.agent.cli import run
from app.agent.config import AgentConfig
from app.agent.credentials import Credentials
from app.proto.velda_pb2 import KillSessionAgentRequest, SessionRequest
from tests.agent.conftest import TIMEOUT, FakeBroker, serve
from tests.support.pki import Pki

PREPARE_NOTHING = "pass"
LEAVE_AN_ORPHAN = """
if not os.fork():
    if not os.fork():
        os.read(0, 1)
    os._exit(0)
"""
MAIN = """
from pathlib import Path
from app.agent.cli import run
sys.exit(run(pool='cpu-pool', config=Path(sys.argv[1])))
"""
UNSHARE = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")


@contextlib.asynccontextmanager
async def agent(
    config: Path, *, wrapper: tuple[str, ...] = (), prepare: str = PREPARE_NOTHING, **environ: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """An agent's process that runs ``prepare`` first."""
    process = await asyncio.create_subprocess_exec(
        *(*wrapper, sys.executable, "-c", f"import os, sys\n{prepare}\n{MAIN}", str(config)),
        stdin=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
def config(tmp_path: Path, broker: tuple[FakeBroker, str]) -> Path:
    path = tmp_path / "velda.yaml"
    path.write_text(f"broker: {{address: '{broker[1]}'}}\ndaemon_config: {{max_sessions: 2}}\n")
    return path


async def test_it_joins_runs_a_session_and_stops_cleanly(config: Path, broker: tuple[FakeBroker, str]) -> None:
    async with agent(config, AGENT_NAME="cpu-pool-9") as process:
        stream = await broker[0].stream()
        first = await stream.next()
        assert (first.agent_identity.agent_id, first.agent_identity.pool) == ("cpu-pool-9", "cpu-pool")
        assert first.slots == 2
        await stream.send(session_request=SessionRequest(session_id="s1"))
        response = (await stream.next()).session_init_response
        assert response.success
        reader, writer = await asyncio.open_connection("127.0.0.1", response.port)
        assert await reader.readline() == b"velda session s1\n"
        process.send_signal(signal.SIGTERM)
        assert (await stream.next()).session_completion.session_id == "s1"
        await stream.half_closed()
        assert await asyncio.wait_for(process.wait(), TIMEOUT) == 0
        writer.close()


async def test_process_1_of_a_container_reaps_what_is_not_its_own(config: Path, broker: tuple[FakeBroker, str]) -> None:
    probe = await asyncio.create_subprocess_exec(*UNSHARE, "true", stderr=asyncio.subprocess.DEVNULL)
    if await probe.wait() != 0:
        pytest.skip("no PID namespace can be made here")
    async with agent(config, wrapper=UNSHARE, prepare=LEAVE_AN_ORPHAN) as process:
        stream = await broker[0].stream()
        await stream.next()
        (process_1,) = _children(process.pid)
        assert process.stdin
        process.stdin.close()  # the orphan ends
        await _no_children(process_1)
        await stream.send(session_request=SessionRequest(session_id="s1"))
        assert (await stream.next()).session_init_response.success
        assert len(_children(process_1)) == 1
        await stream.send(kill_session_request=KillSessionAgentRequest(session_id="s1"))
        assert (await stream.next()).session_completion.session_id == "s1"
        await _no_children(process_1)


async def _no_children(pid: int) -> None:
    """Zombies are children too; the kernel has no event for their end that a stranger could await."""
    async with asyncio.timeout(TIMEOUT):
        while _children(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


async def test_a_client_certificate_makes_it_tls(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    server_certificate, server_key = pki.issue_server("server", hosts=["localhost"])
    certificate, key = pki.issue_client("agent", user="agent")
    credentials = grpc.ssl_server_credentials(
        [(server_key.read_bytes(), server_certificate.read_bytes())],
        root_certificates=pki.ca.read_bytes(),
        require_client_auth=True,
    )
    config = tmp_path / "velda.yaml"
    async with serve(credentials) as (broker, address):
        config.write_text(
            f"broker: {{address: '{address}'}}\n"
            f"daemon_config: {{mtls_client_cert_path: {certificate}, mtls_client_key_path: {key}}}\n"
        )
        async with agent(config, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=str(pki.ca)):
            assert (await (await broker.stream()).next()).agent_identity.pool == "cpu-pool"


async def test_the_ca_beside_velda_yaml_verifies_the_server(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    certificate, key = pki.issue_server("server", hosts=["localhost"])
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    (config := tmp_path / "velda.yaml").touch()
    async with serve(credentials) as (broker, address):
        config.write_text(f"broker: {{address: '{address}', tls: true}}\n")
        config.with_name("ca.crt").write_bytes(pki.ca.read_bytes())
        async with agent(config):
            assert (await (await broker.stream()).next()).agent_identity.pool == "cpu-pool"


def test_files_that_cannot_be_read_for_a_while_leave_what_was_read_last(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    certificate, key = pki.issue_client("agent", user="agent")
    settings = AgentConfig("b:1", client_certificate=str(certificate), client_key=str(key))
    credentials = Credentials(settings, ca=pki.ca)
    first = credentials()
    certificate.unlink()
    assert credentials() is credentials()
    assert first is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("pool: p\n", "broker.address is missing"),
        ("broker: {address: 'b:1'}\n", "no pool: give --pool NAME or set the key pool"),
        (
            "broker: {address: 'b:1'}\ndaemon_config: {mtls_client_cert_path: /no/crt, mtls_client_key_path: /no/key}",
            "/no/key: cannot be read",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    config = tmp_path / "velda.yaml"
    if text is not None:
        config.write_text(text)
    assert run(config=config) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("velda agent: ")
    assert message in line


async def test_it_imports_only_what_it_needs(config: Path, broker: tuple[FakeBroker, str]) -> None:
    code = "import sys, app.agent.cli; print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    loaded = set((await process.communicate())[0].decode().split())
    assert not loaded & {"pydantic", "fastapi", "kubernetes", "structlog", "rich", "aiohttp", "cryptography", "msgspec"}
