"""Sessions as real child processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from app.agent import session as module
from app.agent.session import ProcessRunner, ProcessSession, SessionFailedError
from app.proto.velda_pb2 import SessionRequest
from tests.agent.conftest import TIMEOUT


class Sessions:
    def __init__(self) -> None:
        self.runner = ProcessRunner()
        self.started: list[ProcessSession] = []

    async def start(self, **fields: object) -> ProcessSession:
        session = await self.runner.start(SessionRequest(session_id="s1", **fields))  # type: ignore[arg-type]
        self.started.append(session)
        return session


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    sessions = Sessions()
    yield sessions
    for session in sessions.started:
        session.kill()
        await session.wait()


async def _greeted(port: int, host: str = "127.0.0.1") -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection(host, port)
    assert await asyncio.wait_for(reader.readline(), TIMEOUT) == b"velda session s1\n"
    return writer


async def _ended(session: ProcessSession) -> None:
    await asyncio.wait_for(session.wait(), TIMEOUT)
    with pytest.raises(ProcessLookupError):  # a zombie would still take signals
        os.kill(session.pid, 0)


async def _leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def test_a_session_greets_and_ends_when_asked(sessions: Sessions) -> None:
    session = await sessions.start()
    first, second = await _greeted(session.port), await _greeted(session.port)
    session.terminate()
    await _ended(session)
    await _leave(first)
    await _leave(second)


async def test_each_session_has_a_host_key_of_its_own(sessions: Sessions) -> None:
    first, second = await sessions.start(), await sessions.start()
    assert first.host_key[4:15] == b"ssh-ed25519"
    assert len(first.host_key) == 4 + 11 + 4 + 32
    assert (first.host_key, first.port) != (second.host_key, second.port)


async def test_it_can_end_with_its_last_connection(sessions: Sessions) -> None:
    session = await sessions.start(connection_finish_action=SessionRequest.CONNECTION_FINISH_ACTION_TERMINATE)
    first, second = await _greeted(session.port), await _greeted(session.port)
    await _leave(first)
    third = await _greeted(session.port)
    await _leave(second)
    await _leave(third)
    await _ended(session)


async def test_it_can_end_after_idling(sessions: Sessions) -> None:
    await _ended(await sessions.start(idle_timeout=Duration(nanos=1_000_000)))


async def test_it_ends_with_the_agent(sessions: Sessions) -> None:
    session = await sessions.start()
    assert session._process.stdin
    session._process.stdin.close()  # as the kernel does when the agent dies
    await _ended(session)


async def test_a_process_that_does_not_come_up_is_a_failure_and_leaves_nothing(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    silent = tmp_path / "child.py"
    silent.write_text("import sys\nsys.stdin.read()\n")
    monkeypatch.setattr(module, "_CHILD", str(silent))
    with pytest.raises(SessionFailedError, match="TimeoutError"):
        await sessions.start(init_timeout=Duration(nanos=1_000_000))
    silent.write_text("")
    with pytest.raises(SessionFailedError, match="did not come up"):
        await sessions.start()
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    with pytest.raises(SessionFailedError, match="no process"):
        await sessions.start()
    assert not sessions.runner._sessions


async def test_a_start_that_is_cancelled_leaves_nothing(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    silent = tmp_path / "child.py"
    silent.write_text("import sys\nsys.stdin.read()\n")
    monkeypatch.setattr(module, "_CHILD", str(silent))
    starting = asyncio.create_task(sessions.start())
    await asyncio.sleep(0)
    (session,) = sessions.runner._sessions.values()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await _ended(session)
