"""Any order of joins, breaks, requests, answers, kills and time leaves the books straight and no session twice."""

from __future__ import annotations

import contextlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.broker.refusal import RefusedError
from app.broker.sessions import SessionKey
from app.proto import velda_pb2
from tests.broker.world import CPU, Agent, Call, Status, World, execution

AGENTS = st.sampled_from(["a", "b", "c"])
SESSIONS = st.sampled_from(["s", "t", "u", "v"])


class Truth:
    """What really runs in one agent, whatever the broker believes, and what it has not read yet."""

    def __init__(self) -> None:
        self.link: Agent | None = None
        self.read = 0
        self.starting: set[str] = set()
        self.running: set[str] = set()


class Broker(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.truths = {name: Truth() for name in "abc"}
        self.calls: list[Call] = []

    @rule(name=AGENTS, slots=st.integers(1, 3))
    def join(self, name: str, slots: int) -> None:
        truth = self.truths[name]
        reports = [execution(s) for s in sorted(truth.running)]
        reports += [execution(s, started=False) for s in sorted(truth.starting)]
        truth.link = None
        with contextlib.suppress(RefusedError):  # drained
            truth.link = self.world.join(name, *reports, slots=slots)
        truth.read = 0

    @rule(name=AGENTS, lossy=st.booleans())
    def break_off(self, name: str, lossy: bool) -> None:
        """With or without having read what was under way."""
        truth = self.truths[name]
        if truth.link:
            if not lossy:
                self.read(name)
            self.world.registry.lost(truth.link)
            truth.link = None

    @rule(name=AGENTS)
    def read(self, name: str) -> None:
        truth = self.truths[name]
        if truth.link is None:
            return
        while truth.read < len(truth.link.received):
            message = truth.link.received[truth.read]
            truth.read += 1
            if message.HasField("session_request"):
                truth.starting.add(message.session_request.session_id)
            if message.HasField("kill_session_request"):
                self._obey(truth, truth.link, message.kill_session_request.session_id)

    def _obey(self, truth: Truth, link: Agent, session_id: str) -> None:
        if session_id in truth.starting:
            truth.starting.discard(session_id)
            link.starts(session_id, success=False)
        if session_id in truth.running:
            truth.running.discard(session_id)
            link.ends(session_id)

    @rule(name=AGENTS, success=st.booleans())
    def answer(self, name: str, success: bool) -> None:
        truth = self.truths[name]
        self.read(name)
        if truth.link and truth.starting:
            session_id = min(truth.starting)
            truth.starting.discard(session_id)
            if success:
                truth.running.add(session_id)
            truth.link.starts(session_id, success=success)

    @rule(name=AGENTS)
    def finish(self, name: str) -> None:
        truth = self.truths[name]
        if truth.link and truth.running:
            session_id = min(truth.running)
            truth.running.discard(session_id)
            truth.link.ends(session_id)

    @rule(session_id=SESSIONS, priority=st.integers(0, 2), service=st.sampled_from(["", "web"]))
    def request(self, session_id: str, priority: int, service: str) -> None:
        with contextlib.suppress(RefusedError):  # it is being ended
            self.calls.append(self.world.request(session_id, priority=priority, service_name=service))

    @rule(index=st.integers(0, 9))
    def leave(self, index: int) -> None:
        if self.calls:
            self.calls.pop(index % len(self.calls)).leave()

    @rule(session_id=SESSIONS)
    def kill(self, session_id: str) -> None:
        request = velda_pb2.KillSessionRequest(instance_id=1, session_id=session_id)
        if session_id in self.world.statuses():
            self.world.registry.kill(request)

    @rule(name=AGENTS)
    def drain(self, name: str) -> None:
        view = self.world.registry.pool_agents(CPU).agents.get(name)
        serves = view is not None and view.connected and view.sessions > 0
        assert self.world.registry.drain(CPU, name) == (not serves)

    @rule(name=AGENTS)
    def undrain(self, name: str) -> None:
        self.world.registry.undrain(CPU, name)

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0]))
    def wait(self, seconds: float) -> None:
        """Agents send their heartbeats."""
        for truth in self.truths.values():
            if truth.link:
                truth.link.says()
        self.world.pass_time(seconds)

    @invariant()
    def books_are_straight(self) -> None:
        life = self.world.registry._life
        pool = life.pool(CPU)
        for session in life.table:
            queued = session.status == Status.STATUS_QUEUEING
            assert queued == (session in pool.queue) == (session.agent is None)
            assert not queued or (session.waiters and not session.ending)
            if session.agent:
                assert session.agent.sessions[session.key] is session
                assert pool.agents[session.agent.name] is session.agent
                assert (session.status == Status.STATUS_STALE) == (session.agent.link is None)
            assert not (session.waiters and session.status in (Status.STATUS_RUNNING, Status.STATUS_STALE))
        for agent in pool.agents.values():
            assert all(life.table.get(key) is session for key, session in agent.sessions.items())
            ready = agent.link and not agent.draining and not agent.resting and len(agent.sessions) < agent.slots
            assert (agent in pool.bench) == bool(ready)
        assert not (len(pool.queue) and len(pool.bench))
        assert all(len(call.outcomes) <= 1 for call in self.calls)

    def teardown(self) -> None:
        """Once every agent is back and has read all, what runs is what the broker says, each session once."""
        for name in "abc":
            self.world.registry.undrain(CPU, name)
            self.join(name, 1)
        for _ in range(50):
            for name in "abc":
                self.read(name)
                while self.truths[name].starting:
                    self.answer(name, True)
            self.wait(40.0)
        life = self.world.registry._life
        for name, truth in self.truths.items():
            for session_id in truth.running:
                session = life.table.get(SessionKey(1, session_id))
                assert session
                assert session.agent
                assert session.agent.name == name
        running = [session_id for truth in self.truths.values() for session_id in truth.running]
        assert sorted(running) == sorted(s for s, status in self.world.statuses().items() if status == "RUNNING")


Broker.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBroker = Broker.TestCase
