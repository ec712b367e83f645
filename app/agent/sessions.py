"""The sessions of one agent: started, ended and reported as the server asks; they outlive the stream that asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from app.agent.session import Session, SessionFailedError, SessionRunner
from app.proto.velda_pb2 import (
    AgentUpdateRequest,
    CurrentExecution,
    KillSessionAgentRequest,
    SessionCompletion,
    SessionInitResponse,
    SessionRequest,
)

KILL_AFTER = 10.0
"""Seconds that a session has to end when it is asked to, before it is killed."""

log = logging.getLogger(__name__)


@dataclass
class _Entry:
    request: SessionRequest
    task: asyncio.Task[None] | None = None
    session: Session | None = None
    response: SessionInitResponse | None = None
    deadline: asyncio.TimerHandle | None = None


class Sessions:
    """``send`` takes what the server has to be told; it never blocks."""

    def __init__(self, *, runner: SessionRunner, slots: int, send: Callable[[AgentUpdateRequest], None]) -> None:
        self._runner = runner
        self._slots = slots
        self._send = send
        self._entries: dict[str, _Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def current(self) -> list[CurrentExecution]:
        """What runs, as the first message of a stream reports it."""
        return [
            CurrentExecution(request=entry.request, response=entry.response)
            for entry in self._entries.values()
            if entry.response
        ]

    def request(self, request: SessionRequest) -> None:
        """Start a session and answer; asked again for one that it has, the answer is the same."""
        if entry := self._entries.get(request.session_id):
            if entry.response:
                self._send(AgentUpdateRequest(session_init_response=entry.response))
        elif self._stopping:
            self._refuse(request, "the agent stops")
        elif len(self._entries) >= self._slots:
            self._refuse(request, "every slot is taken")
        else:
            entry = self._entries[request.session_id] = _Entry(request)
            entry.task = asyncio.create_task(self._live(entry), name=f"session {request.session_id}")
            self._tasks.add(entry.task)
            entry.task.add_done_callback(self._tasks.discard)

    def kill(self, request: KillSessionAgentRequest) -> None:
        """End a session: asked first and killed 10 s later, or killed at once with ``force``."""
        if entry := self._entries.get(request.session_id):
            self._end(entry, force=request.force)

    def abandon_starting(self) -> None:
        """The stream is lost: the server has given up sessions that were not up yet, and may start them elsewhere."""
        for entry in list(self._entries.values()):
            if entry.session is None:
                self._cancel_start(entry)

    async def stop(self) -> None:
        """Take no more sessions and end those there are; returns when all of them are reported."""
        self._stopping = True
        for entry in list(self._entries.values()):
            self._end(entry, force=False)
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """End everything now."""
        self._stopping = True
        for entry in list(self._entries.values()):
            self._end(entry, force=True)
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _live(self, entry: _Entry) -> None:
        request = entry.request
        try:
            entry.session = await self._runner.start(request)
        except SessionFailedError as error:
            self._forget(entry)
            self._refuse(request, str(error))
            return
        entry.response = SessionInitResponse(
            instance_id=request.instance_id,
            session_id=request.session_id,
            success=True,
            port=entry.session.port,
            host_key=entry.session.host_key,
        )
        self._send(AgentUpdateRequest(session_init_response=entry.response))
        log.info("session %s started on port %d", request.session_id, entry.session.port)
        await entry.session.wait()
        if entry.deadline:
            entry.deadline.cancel()
        self._forget(entry)
        completion = SessionCompletion(instance_id=request.instance_id, session_id=request.session_id)
        self._send(AgentUpdateRequest(session_completion=completion))
        log.info("session %s ended", request.session_id)

    def _end(self, entry: _Entry, *, force: bool) -> None:
        if entry.session is None:
            self._cancel_start(entry)
            self._refuse(entry.request, "it was killed before it was up")
        elif force:
            entry.session.kill()
        elif entry.deadline is None:
            entry.session.terminate()
            entry.deadline = asyncio.get_running_loop().call_later(KILL_AFTER, entry.session.kill)

    def _cancel_start(self, entry: _Entry) -> None:
        self._forget(entry)
        if entry.task:
            entry.task.cancel()

    def _forget(self, entry: _Entry) -> None:
        # The same id may have been asked for anew while a cancelled start still cleans up.
        if self._entries.get(entry.request.session_id) is entry:
            del self._entries[entry.request.session_id]

    def _refuse(self, request: SessionRequest, reason: str) -> None:
        log.warning("session %s refused: %s", request.session_id, reason)
        response = SessionInitResponse(instance_id=request.instance_id, session_id=request.session_id, success=False)
        self._send(AgentUpdateRequest(session_init_response=response))
