"""``python -m tests.support.workers KUBECONFIG DIRECTORY [NODE]``: agents of ours for worker pods, all in one process.

Pods on NODE run there for real and are left alone. Each agent dials from its pod's address. A pod's annotation
``stage.velda.io/agent`` says how its agent fares: ``absent`` (it does not start), ``dead`` (it ends without a word),
``silent`` (its connection stands but carries nothing any more).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from app.agent.agent import Agent, Identity
from app.agent.config import AgentConfig, ConfigError
from tests.support.agents import LoopRunner
from tests.support.api import Api, Object
from tests.support.proxy import key_of
from tests.support.relay import SourceRelay
from tests.support.surroundings import NotYetError, Surroundings, pool_argument

POOL_LABEL = "velda.io/pool"
FATE = "stage.velda.io/agent"
_RETRY = 1.0
log = logging.getLogger("workers")


class Workers:
    """Follows the worker pods of the whole cluster."""

    def __init__(self, api: Api, directory: Path, *, real_node: str) -> None:
        self._api = api
        self._directory = directory
        self._real_node = real_node
        self._surroundings = Surroundings(api)
        self._workers: dict[str, Worker] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            async for gone, pod in self._api.watch("/api/v1/pods", selector=POOL_LABEL):
                uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName")
                if node is None or node == self._real_node:
                    continue
                if uid not in self._workers and not gone:
                    worker = self._workers[uid] = Worker(self._surroundings, pod, self._directory / f"{uid}.sock")
                    group.create_task(self._run(worker))
                if uid in self._workers:
                    self._workers[uid].observe(pod, gone=gone)
                if gone:
                    self._workers.pop(uid, None)

    async def _run(self, worker: Worker) -> None:
        """Its whole life. What kwok does for other pods we do for these: the object goes when the agent is gone."""
        await worker.run()
        path = "/api/v1/namespaces/{}/pods/{}".format(*key_of(worker.pod))
        await self._api.delete(path, uid=worker.pod["metadata"]["uid"], grace=0)


class Worker:
    """One pod's agent; ``path`` is the unix socket through which it dials."""

    def __init__(self, surroundings: Surroundings, pod: Object, path: Path) -> None:
        self.pod = pod
        self._surroundings = surroundings
        self._path = path
        self._relay: SourceRelay | None = None
        self._changed = asyncio.Event()
        self._gone = False

    def observe(self, pod: Object, *, gone: bool) -> None:
        self.pod = pod
        self._gone = self._gone or gone
        self._changed.set()

    async def run(self) -> None:
        """Until the pod is told to stop, and its agent has taken leave or its grace is over."""
        await self._until(lambda: self._stopping() or (self._running() and self._fate() != "absent"))
        serving = asyncio.create_task(self._serve())
        try:
            await self._until(lambda: self._stopping() or self._fate() in ("dead", "silent"))
            if self._fate() == "silent" and self._relay is not None:
                self._relay.silence()
            elif self._fate() == "dead":
                self._die(serving)
            await self._until(self._stopping)
            grace = 0 if self._gone else self.pod["metadata"].get("deletionGracePeriodSeconds", 0)
            await asyncio.wait({serving}, timeout=grace)
        finally:
            self._die(serving)
            await asyncio.wait({serving})

    def _die(self, serving: asyncio.Task[None]) -> None:
        if self._relay is not None:
            self._relay.cut()
        serving.cancel()

    async def _serve(self) -> None:
        while not self._stopping():
            try:
                config = await self._surroundings.config(self.pod)
                await self._surroundings.resolve(config.broker_address)
            except (NotYetError, ConfigError) as error:
                log.warning("%s/%s: %s", *key_of(self.pod), error)
                await asyncio.sleep(_RETRY)  # as a container that fails and is started again
            else:
                await self._be_agent(config)
                return

    async def _be_agent(self, config: AgentConfig) -> None:
        async def target() -> tuple[str, int]:
            try:
                return await self._surroundings.resolve(config.broker_address)
            except NotYetError as error:
                raise ConnectionError(error) from error

        name, address = self.pod["metadata"]["name"], self.pod["status"]["podIP"]
        self._relay = SourceRelay(self._path, target=target, source=address)
        async with self._relay.listening() as dial:
            agent = Agent(
                Identity(
                    agent_id=config.agent_name or name, pool=pool_argument(self.pod) or config.pool, hostname=name
                ),
                target=dial,
                runner=LoopRunner(address),
                slots=config.max_sessions,
            )
            stopping = asyncio.create_task(self._until(self._stopping))
            stopping.add_done_callback(lambda _: agent.stop())
            try:
                await agent.run()
            finally:
                stopping.cancel()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def _stopping(self) -> bool:
        return self._gone or "deletionTimestamp" in self.pod["metadata"]

    def _running(self) -> bool:
        return bool(self.pod["status"].get("phase") == "Running")

    def _fate(self) -> str:
        return str(self.pod["metadata"].get("annotations", {}).get(FATE, ""))


async def main(kubeconfig: Path, directory: Path, real_node: str = "") -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    async with Api(kubeconfig) as api:
        await Workers(api, directory, real_node=real_node).run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
