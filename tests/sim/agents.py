"""Worker agents as they really are, whatever the broker believes, and the wires between the two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc.aio

from app.broker.refusal import RefusedError
from app.broker.sessions import SessionKey, key_of
from app.broker.stream import AgentStream
from app.proto import velda_pb2

if TYPE_CHECKING:
    from tests.sim.world import World

HEARTBEAT = 30.0
NOTICED = 40.0
"""Seconds in which keepalive finds a peer that is gone without a word."""
BACKOFF = (1.0, 2.0, 4.0, 8.0, 15.0)
LOSSLESS = 1e12


class Wire:
    """One direction of a stream: what is put in comes out in order, after a while, until it is cut."""

    def __init__(self, world: World, deliver: Callable[[Any], None]) -> None:
        self._world, self._deliver = world, deliver
        self._due = 0.0
        self.cut_at = LOSSLESS

    def put(self, message: Any) -> None:
        loop = self._world.loop
        self._due = max(self._due, loop.time() + self._world.rng.uniform(0.0005, 0.01))
        loop.call_at(self._due, self._arrive, message)

    def _arrive(self, message: Any) -> None:
        if self._world.loop.time() < self.cut_at:
            self._deliver(message)


class Connection:
    """A gRPC stream: to the server it is the context of a call, to the agent the call."""

    def __init__(self, world: World, agent: SimAgent, replica: Any) -> None:
        self.world, self.agent, self.replica = world, agent, replica
        self.up = Wire(world, self._arrived)
        self.down = Wire(world, self._told)
        self.joined = False
        """The agent has had the server's first answer."""
        self.broken = False
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        broker = replica.broker
        stream = AgentStream(replica.registry, broker._gatekeeper, self, bounds=broker.bounds)  # type: ignore[arg-type]
        self.link = stream
        self.task = world.loop.create_task(self._serve(stream))
        world.streams[self.task] = self  # as gRPC keeps them: a task that nobody knows may be collected as garbage
        self.task.add_done_callback(world.streams.pop)

    # The server's end.

    def peer(self) -> str:
        return f"ipv4:{self.agent.ip}:5000"

    async def read(self) -> Any:
        return await self._inbox.get()

    async def write(self, message: velda_pb2.AgentUpdateResponse) -> None:
        self.down.put(message)

    async def _serve(self, stream: AgentStream) -> None:
        try:
            await stream.run()
        except RefusedError as why:
            self.down.put(why)
        else:
            self.down.put(None)

    def _arrived(self, message: Any) -> None:
        self._inbox.put_nowait(message)
        if message is not grpc.aio.EOF and message.ByteSize():
            self.world.step("agent heard")

    # The agent's end.

    def _told(self, message: Any) -> None:
        self.agent.received(self, message)
        self.world.step("agent told")

    def say(self, message: velda_pb2.AgentUpdateRequest) -> None:
        self.up.put(message)

    def half_close(self) -> None:
        self.up.put(grpc.aio.EOF)

    def lose(self, *, agent_after: float, server_after: float) -> None:
        """Nothing passes any more; each end finds out after so many seconds."""
        if self.broken:
            return
        self.broken = True
        now = self.world.loop.time()
        self.up.cut_at = self.down.cut_at = now
        self.world.loop.later(agent_after, self.agent.stream_ended, self, True)
        self.world.loop.later(server_after, self._server_notices)

    def _server_notices(self) -> None:
        """The reading end is over a moment before gRPC cancels the call."""
        self._inbox.put_nowait(grpc.aio.EOF)
        self.world.loop.later(0.002, self.task.cancel)
        self.world.step("stream broken")


class SimSession:
    """What an agent knows of a session; ``answer`` once it has started. Stubborn ones do not end when asked."""

    def __init__(self, request: velda_pb2.SessionRequest, *, stubborn: bool) -> None:
        self.request = request
        self.stubborn = stubborn
        self.answer: velda_pb2.SessionInitResponse | None = None
        self.gone = self.asked_to_end = False
        self.up_since = 0.0


class SimAgent:
    """The process in one pod's container. It lives until ``die``."""

    def __init__(self, world: World, *, pool: tuple[str, str], name: str, pod_uid: str, ip: str, slots: int) -> None:
        self.world, self.pool, self.name, self.pod_uid, self.ip, self.slots = world, pool, name, pod_uid, ip, slots
        self.agent_id = name
        self.conn: Connection | None = None
        self.sessions: dict[SessionKey, SimSession] = {}
        self.dead = self.stopping = self.deaf = False
        """``deaf``: it answers no session request."""
        self.connected_since = 0.0
        self._failures = 0

    # Joining.

    def dial(self) -> None:
        """Open a stream; one that it has is left to the server to end."""
        if self.dead or self.stopping:
            return
        replica = self.world.leader
        if replica is None or replica.registry is None:
            self._again()
            return
        conn = self.conn = Connection(self.world, self, replica)
        current = [
            velda_pb2.CurrentExecution(request=session.request, response=session.answer)
            for session in self.sessions.values()
            if session.answer
        ]
        identity = velda_pb2.AgentIdentity(agent_id=self.agent_id, pool=self.pool[1])
        conn.say(velda_pb2.AgentUpdateRequest(agent_identity=identity, slots=self.slots, current_executions=current))
        self.world.loop.later(HEARTBEAT, self._heartbeat, conn)

    def redial(self) -> None:
        if self.conn is None:
            self.dial()

    def _again(self) -> None:
        delay = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
        self._failures += 1
        self.world.loop.later(delay * self.world.rng.uniform(0.5, 1.0), self.redial)

    def _heartbeat(self, conn: Connection) -> None:
        if conn is self.conn and not self.dead:
            conn.say(velda_pb2.AgentUpdateRequest())
            self.world.loop.later(HEARTBEAT, self._heartbeat, conn)

    def stream_ended(self, conn: Connection, failed: bool) -> None:
        if conn is not self.conn:
            return
        self.conn = None
        for key in [key for key, session in self.sessions.items() if session.answer is None]:
            self.forget(key)  # the server gives sessions that are not up to others
        if self.dead or self.stopping:
            return
        if failed:
            self._again()
        else:
            self.world.loop.later(1.0, self.redial)

    # What the server says.

    def received(self, conn: Connection, message: Any) -> None:
        if self.dead:
            return
        if message is None or isinstance(message, RefusedError):
            self.stream_ended(conn, message is not None)
            return
        if conn is not self.conn:
            return
        if message.HasField("server_info"):
            conn.joined, self.connected_since, self._failures = True, self.world.loop.time(), 0
        if message.HasField("session_request"):
            self._start(message.session_request)
        if message.HasField("kill_session_request"):
            self._kill(key_of(message.kill_session_request))

    def _start(self, request: velda_pb2.SessionRequest) -> None:
        key, rng = key_of(request), self.world.rng
        known = self.sessions.get(key)
        if known:
            if known.answer:
                self._say(velda_pb2.AgentUpdateRequest(session_init_response=known.answer))
            return
        if self.stopping or len(self.sessions) >= self.slots or rng.random() < self.world.start_failures:
            self._refuse(key)
            return
        own = velda_pb2.SessionRequest()
        own.CopyFrom(request)
        session = self.sessions[key] = SimSession(own, stubborn=rng.random() < 0.05)
        if not self.deaf:
            self.world.loop.later(rng.choice((0.01, 0.2, 3.0)), self._started, key, session)

    def _started(self, key: SessionKey, session: SimSession) -> None:
        if self.dead or session.gone:
            return
        session.answer = velda_pb2.SessionInitResponse(
            instance_id=key.instance_id, session_id=key.session_id, success=True, port=22
        )
        self.world.runs(key, self)
        self._say(velda_pb2.AgentUpdateRequest(session_init_response=session.answer))
        self.world.step("session up")

    def _kill(self, key: SessionKey) -> None:
        session = self.sessions.get(key)
        if session is None:
            return
        session.asked_to_end = True
        if session.answer is None:
            self.forget(key)
            self._refuse(key)
        elif not session.stubborn:
            self.world.loop.later(self.world.rng.uniform(0.0, 1.0), self.end, key, session)

    def end(self, key: SessionKey, session: SimSession) -> None:
        """The session is over, by itself or because it was asked to end."""
        if self.dead or session.gone:
            return
        self.forget(key)
        completion = velda_pb2.SessionCompletion(instance_id=key.instance_id, session_id=key.session_id)
        self._say(velda_pb2.AgentUpdateRequest(session_completion=completion))

    def forget(self, key: SessionKey) -> None:
        session = self.sessions.pop(key)
        session.gone = True
        if session.answer:
            self.world.runs_no_more(key, self)

    def _refuse(self, key: SessionKey) -> None:
        response = velda_pb2.SessionInitResponse(instance_id=key.instance_id, session_id=key.session_id, success=False)
        self._say(velda_pb2.AgentUpdateRequest(session_init_response=response))

    def _say(self, message: velda_pb2.AgentUpdateRequest) -> None:
        if self.conn:
            self.conn.say(message)

    # Its end.

    def stop(self, exited: Callable[[], None]) -> None:
        """SIGTERM: end the sessions, report each, take leave, and exit."""
        if self.dead or self.stopping:
            return
        self.stopping = True
        for key, session in list(self.sessions.items()):
            if session.answer is None:
                self.forget(key)
                self._refuse(key)
            elif not session.stubborn:
                self.world.loop.later(self.world.rng.uniform(0.0, 5.0), self.end, key, session)
        self._leave(exited)

    def _leave(self, exited: Callable[[], None]) -> None:
        if self.dead:
            return
        if self.sessions:
            self.world.loop.later(1.0, self._leave, exited)
            return
        if self.conn:
            self.conn.half_close()
        self.world.loop.later(0.5, exited)

    def restart(self) -> None:
        """The container crashes and starts again: nothing of it is left."""
        for key in list(self.sessions):
            self.forget(key)
        if self.conn:
            self.conn.lose(agent_after=0.5, server_after=self.world.rng.choice((0.01, 1.0)))

    def die(self) -> None:
        if self.dead:
            return
        self.dead = True
        for key in list(self.sessions):
            self.forget(key)
        if self.conn:
            self.conn.lose(agent_after=0.0, server_after=self.world.rng.choice((0.01, 1.0, NOTICED)))
