"""A real server on the real API server, agents of ours that join it, and users who run the client's commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from typer.testing import CliRunner

from app.__main__ import cli
from app.agent.agent import Agent, Identity
from tests.support.agents import LoopRunner
from tests.support.cluster import Cluster
from tests.support.process import bound, free_port
from tests.support.running import CHECKOUT

SESSION_USER = {"agentpools": ["get", "list", "watch"], "agentpools/session": ["create", "delete"]}
VIEWER = {"agentpools": ["get", "list", "watch"]}


def other_authority(cluster: Cluster, path: Path) -> Path:
    """A CA that is not the server's, written to ``path``: the API server's own."""
    where = ("configmap/kube-root-ca.crt", "--namespace=default")
    cluster.kubectl("wait", *where, "--for=create", "--timeout=30s")
    path.write_text(cluster.get(*where)["data"]["ca.crt"])
    return path


class Done(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Place:
    """A namespace with a server of its own."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.namespace = cluster.namespace()
        self.directory = directory
        self.url = f"https://127.0.0.1:{(client := free_port())}"
        self.broker = f"127.0.0.1:{(grpc := free_port())}"
        self.config, self.log = directory / "velda-config.yaml", directory / "server.log"
        self.config.write_text(
            f"provisioners: [{{kubernetes: {{namespace: {self.namespace}}}}}]\n"
            f"server: {{host: 127.0.0.1, port: {free_port()}, client_port: {client}}}\n"
            f"broker: {{host: 127.0.0.1, port: {grpc}}}\n"
            "agents: {authentication: none}\n"
        )
        self.environment = {"VELDA_SERVER": self.url, "VELDA_CA": str(directory / "ca.crt"), "NO_COLOR": "1"}

    @contextlib.asynccontextmanager
    async def server(self) -> AsyncIterator[None]:
        """Until it leads; ended by SIGTERM."""
        started = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *bound(sys.executable, "-m", "app", "serve", "--config", self.config),
                cwd=CHECKOUT,
                env={**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)},
                stdout=output,
                stderr=output,
            )
        try:
            async with asyncio.timeout(60):
                while '"leading"' not in self.log.read_text()[started:]:
                    assert process.returncode is None, self.log.read_text()
                    await asyncio.sleep(0.05)  # a file has no event
            published = self.cluster.get("configmap", "velda-apiserver-ca", f"-n={self.namespace}")
            (self.directory / "ca.crt").write_text(published["data"]["ca.crt"])
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), timeout=30)

    @contextlib.asynccontextmanager
    async def agent(self, pool: str, name: str = "a") -> AsyncIterator[LoopRunner]:
        """One that has joined."""
        runner = LoopRunner()
        agent = Agent(Identity(agent_id=name, pool=pool), target=self.broker, runner=runner)
        running = asyncio.create_task(agent.run())
        try:
            await asyncio.wait_for(agent.joined.wait(), timeout=30)
            yield runner
        finally:
            agent.stop()
            await running

    def pool(self, name: str = "cpu") -> str:
        """An AgentPool whose pods fit on no node; agents join it as tests tell them to."""
        container = {"name": "agent", "image": "veldaio/agent:latest"}
        spec = {"containers": [container], "nodeSelector": {"none": "such"}}
        manifest = {
            "apiVersion": "velda.io/v1",
            "kind": "AgentPool",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "autoscaler": {"minIdle": 0, "maxIdle": 1, "maxReplicas": 1},
                "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            },
        }
        self.cluster.kubectl("apply", "--filename=-", input=yaml.safe_dump(manifest))
        return f"{self.namespace}/{name}"

    def forbid_pods(self) -> None:
        """By a quota: why no agent comes is the API server's own word."""
        self.cluster.kubectl("create", "quota", "none", "--hard=pods=0", f"--namespace={self.namespace}")

    def user(self, name: str, rights: dict[str, list[str]]) -> Path:
        """A token of a service account that has these rights in the namespace: its file."""
        where = f"--namespace={self.namespace}"
        self.cluster.kubectl("create", "serviceaccount", name, where)
        rules = [{"apiGroups": ["velda.io"], "resources": [key], "verbs": verbs} for key, verbs in rights.items()]
        metadata = {"name": name, "namespace": self.namespace}
        group = "rbac.authorization.k8s.io"
        role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules}
        self.cluster.kubectl("apply", "--filename=-", input=yaml.safe_dump(role))
        account = f"--serviceaccount={self.namespace}:{name}"
        self.cluster.kubectl("create", "rolebinding", name, f"--role={name}", account, where)
        path = self.directory / f"{name}.token"
        path.touch(mode=0o600)
        path.write_text(self.cluster.kubectl("create", "token", name, where).stdout)
        return path

    async def run(self, *args: str, **environment: str) -> Done:
        """The command, in this process."""
        found = await asyncio.to_thread(CliRunner().invoke, cli, args, env={**self.environment, **environment})
        if found.exception and not isinstance(found.exception, SystemExit):
            raise found.exception
        return Done(found.exit_code, found.stdout, found.stderr)

    async def start(self, *args: str, **environment: str) -> Started:
        """The command, as a process."""
        process = await asyncio.create_subprocess_exec(
            *bound(sys.executable, "-m", "app", *args),
            cwd=CHECKOUT,
            env={**os.environ, **self.environment, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return Started(process)


class Started:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def says(self, words: str) -> None:
        """Wait until a line of standard error has the words."""
        assert self.process.stderr
        async with asyncio.timeout(60):
            while words not in (line := (await self.process.stderr.readline()).decode()):
                assert line, f"it ended: {self.said}"
                self.said += line

    async def prints(self) -> str:
        """The next line of standard output."""
        assert self.process.stdout
        return (await asyncio.wait_for(self.process.stdout.readline(), timeout=60)).decode()

    async def done(self) -> Done:
        out, error = await asyncio.wait_for(self.process.communicate(), timeout=60)
        assert self.process.returncode is not None
        return Done(self.process.returncode, out.decode(), error.decode())
