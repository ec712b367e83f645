"""Our server's pods as local processes: what kubelet and a container runtime would do with each, without images."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.api import Api, Object, RequestError
from tests.support.netns import Netns
from tests.support.podspec import PodFiles, PodSpecError, expand
from tests.support.podstatus import PodStatus, now
from tests.support.probe import Prober
from tests.support.process import die_with_parent
from tests.support.proxy import Network, ServiceProxy, key_of
from tests.support.running import CHECKOUT

LABEL, VALUE = "app.kubernetes.io/name", "velda-apiserver"
"""Pods that are run here and not by kwok."""
_RESTART_AFTER = 1.0
_IMAGE_ENV = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
    "PYTHONPATH": str(CHECKOUT),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
"""What the Dockerfile sets."""
_CODE = (CHECKOUT, sys.prefix, sys.base_prefix)
_ENTRYPOINT = ["python", "-m", "app"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What every pod here shares; ``api_service`` is the ClusterIP of default/kubernetes."""

    api: Api
    proxy: ServiceProxy
    api_service: str
    directory: Path
    logs: Path


class ProcessKubelet:
    """Runs every pod labelled as our server's that the scheduler has given a node."""

    def __init__(self, api: Api, proxy: ServiceProxy, *, api_service: str, directory: Path, logs: Path) -> None:
        self._machine = Machine(api=api, proxy=proxy, api_service=api_service, directory=directory, logs=logs)
        self._api = api
        self._pods: dict[str, PodRunner] = {}
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            async for gone, pod in self._api.watch("/api/v1/pods", selector=f"{LABEL}={VALUE}"):
                uid = pod["metadata"]["uid"]
                runner = self._pods.get(uid)
                if runner is None and not gone and pod["spec"].get("nodeName"):
                    if pod["status"].get("phase") in ("Succeeded", "Failed"):
                        continue
                    runner = self._pods[uid] = self._runner(pod)
                    group.create_task(runner.run())
                if runner is not None and (gone or "deletionTimestamp" in pod["metadata"]):
                    runner.terminate(pod["metadata"].get("deletionGracePeriodSeconds", 0))
                if gone:
                    self._pods.pop(uid, None)

    def _runner(self, pod: Object) -> PodRunner:
        number = next(self._numbers)
        address = f"127.70.{number // 250}.{number % 250 + 1}"
        return PodRunner(self._machine, pod, address=address)


class PodRunner:
    """One pod with one container, from its start to the end of its object."""

    def __init__(self, machine: Machine, pod: Object, *, address: str) -> None:
        self._machine = machine
        self._api = machine.api
        self._proxy = machine.proxy
        self._pod = pod
        (self._container,) = pod["spec"]["containers"]
        pod["status"]["podIP"] = self._address = address
        self._directory = machine.directory / pod["metadata"]["uid"]
        self._log = machine.logs / f"{pod['metadata']['name']}.log"
        self._files = PodFiles(machine.api, pod, self._directory / "volumes")
        self._status = PodStatus(machine.api, pod, self._container)
        self._grace = 0.0
        self._told = asyncio.Event()

    def terminate(self, grace: float) -> None:
        self._grace = grace
        self._told.set()

    async def run(self) -> None:
        while not self._told.is_set():
            code = await self._attempt()
            if code is not None:
                if not self._told.is_set() and self._is_final(code):
                    await self._status.finish(succeeded=code == 0)
                    break
                self._status.restarts += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _RESTART_AFTER)
        await self._told.wait()
        path = "/api/v1/namespaces/{}/pods/{}".format(*key_of(self._pod))
        await self._api.delete(path, uid=self._pod["metadata"]["uid"], grace=0)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _is_final(self, code: int) -> bool:
        policy = self._pod["spec"].get("restartPolicy", "Always")
        return policy == "Never" or (policy == "OnFailure" and code == 0)

    async def _attempt(self) -> int | None:
        """One life of the container; returns its exit code, None when it could not be started."""
        try:
            process, netns = await self._start()
        except (PodSpecError, RequestError) as error:
            waiting = {"reason": "CreateContainerConfigError", "message": str(error)}
            await self._status.report(ready=False, waiting=waiting)
            return None
        try:
            return await self._attend(process, netns)
        finally:
            self._proxy.remove_network(key_of(self._pod))

    async def _start(self) -> tuple[asyncio.subprocess.Process, Netns]:
        spec = await self._sandbox_spec()
        path = self._directory / "sandbox.json"
        path.write_text(json.dumps(spec))
        ours, theirs = socket.socketpair()
        with ours, theirs, self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.support.sandbox", str(path), str(theirs.fileno())),
                cwd=CHECKOUT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                preexec_fn=die_with_parent,
            )
            theirs.close()
            ours.setblocking(False)
            if not await asyncio.get_running_loop().sock_recv(ours, 16):
                raise PodSpecError(f"the sandbox did not come up: see {self._log}")
            netns = Netns(process.pid)
            await self._proxy.add_network(key_of(self._pod), self._network(netns))
            ours.send(b"!")
        return process, netns

    def _network(self, netns: Netns) -> Network:
        taken = frozenset(port["containerPort"] for port in self._container.get("ports", []))
        home = self._pod["metadata"]["namespace"]
        return Network(netns, self._address, self._directory / "hosts", home=home, taken=taken)

    async def _sandbox_spec(self) -> Object:
        metadata = self._pod["metadata"]
        volumes = await self._files.volumes()
        services = {"KUBERNETES_SERVICE_HOST": self._machine.api_service, "KUBERNETES_SERVICE_PORT": "443"}
        environment = {
            **_IMAGE_ENV,
            "HOSTNAME": metadata["name"],
            **services,
            **await self._files.environment(self._container),
        }
        hosts = self._directory / "hosts"
        hosts.touch()
        scratch = self._directory / "scratch"
        scratch.mkdir(exist_ok=True)
        command = self._container.get("command", _ENTRYPOINT) + self._container.get("args", [])
        return {
            "hostname": metadata["name"][:63],
            "scratch": str(scratch),
            "mounts": [{"source": str(hosts), "target": "/etc/hosts", "read_only": True}, *self._mounts(volumes)],
            "command": [expand(part, environment) for part in command],
            "env": environment,
        }

    def _mounts(self, volumes: dict[str, Path]) -> list[Object]:
        """What hides the files that others come from is mounted last, and not at all if the code itself is below it."""
        empty = {volume["name"] for volume in self._pod["spec"].get("volumes", []) if "emptyDir" in volume}
        mounts = [
            {
                "source": str(volumes[mount["name"]] / mount.get("subPath", "")),
                "target": mount["mountPath"],
                "read_only": mount["name"] not in empty,
            }
            for mount in self._container.get("volumeMounts", [])
            if not any(Path(code).is_relative_to(mount["mountPath"]) for code in _CODE)
        ]
        return sorted(mounts, key=lambda mount: self._directory.is_relative_to(mount["target"]))

    async def _attend(self, process: asyncio.subprocess.Process, netns: Netns) -> int:
        """Probe while it lives; end it when told to, as kubelet does: preStop, SIGTERM, grace, SIGKILL."""
        ended = asyncio.create_task(process.wait())
        told, attending = asyncio.create_task(self._told.wait()), asyncio.create_task(self._live(process, netns))
        try:
            await asyncio.wait({ended, told, attending}, return_when=asyncio.FIRST_COMPLETED)
            if attending.done():
                attending.result()
            if not ended.done():
                await self._end(process, ended)
            code = await ended
        finally:
            for task in (attending, told, ended):
                task.cancel()
        reason = "Completed" if code == 0 else "Error"
        await self._status.report(ready=False, terminated={"exitCode": code, "reason": reason, "finishedAt": now()})
        return code

    async def _live(self, process: asyncio.subprocess.Process, netns: Netns) -> None:
        """Probes and fresh tokens, for ever."""
        ports = {port["name"]: port["containerPort"] for port in self._container.get("ports", []) if "name" in port}
        prober, running = Prober(netns, self._address, ports), {"startedAt": now()}

        async def readiness(ready: bool) -> None:
            await self._status.report(ready=ready, running=running)

        async def liveness(alive: bool) -> None:
            if not alive:
                process.kill()

        await readiness("readinessProbe" not in self._container and "startupProbe" not in self._container)
        if "startupProbe" in self._container:
            await liveness(await prober.first(self._container["startupProbe"]))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._files.renew_tokens())
            for name, changed in (("readinessProbe", readiness), ("livenessProbe", liveness)):
                if name in self._container:
                    group.create_task(prober.follow(self._container[name], changed))

    async def _end(self, process: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
        deadline = asyncio.get_running_loop().time() + self._grace
        pause = self._container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        await asyncio.wait({ended}, timeout=min(pause, self._grace))
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait({ended}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        with contextlib.suppress(ProcessLookupError):
            process.kill()
