"""An agent of ours for every pod that runs, until its pod goes."""

from __future__ import annotations

import asyncio

from app.agent.agent import Agent, Identity
from tests.faults.audit import pool_of, runs
from tests.support.agents import LoopRunner
from tests.support.api import Object


class Crew:
    """All in this process; they dial ``target``, whatever stands there."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._agents: dict[str, tuple[Agent, LoopRunner]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._extra: list[asyncio.Task[None]] = []

    def observe(self, pod: Object, gone: bool) -> None:
        uid = pod["metadata"]["uid"]
        if not gone and runs(pod) and uid not in self._tasks:
            self._tasks[uid] = asyncio.create_task(self._run(pod))
        elif uid in self._tasks and (gone or not runs(pod)):
            self._tasks[uid].cancel()

    def again(self, name: str) -> None:
        """Another agent that says it is the one of that pod, as after a restart of its container."""
        agent, runner = self._agents[name]
        other = Agent(agent.identity, target=self._target, runner=runner)
        self._extra.append(asyncio.create_task(other.run()))

    def busy(self, name: str) -> bool:
        return bool(self.sessions(name))

    def sessions(self, name: str) -> set[str]:
        """What runs at the agent of that pod now."""
        if name not in self._agents:
            return set()
        sessions = self._agents[name][1].sessions
        return {key for key, session in sessions.items() if not session.terminated.is_set()}

    @property
    def running(self) -> set[str]:
        return set().union(*(self.sessions(name) for name in self._agents))

    def finish(self, session_id: str) -> None:
        """It ends by itself."""
        for _, runner in self._agents.values():
            if session_id in runner.sessions:
                runner.sessions.pop(session_id).finish()

    @property
    def joined(self) -> int:
        return sum(agent.joined.is_set() for agent, _ in self._agents.values())

    async def stop(self) -> None:
        tasks = [*self._tasks.values(), *self._extra]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, pod: Object) -> None:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        runner = LoopRunner()
        identity = Identity(agent_id=name, pool=f"{namespace}/{pool_of(pod)}", hostname=name)
        agent = Agent(identity, target=self._target, runner=runner)
        self._agents[name] = agent, runner
        try:
            await agent.run()
        finally:
            self._agents.pop(name, None)
