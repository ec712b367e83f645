"""A running stage as tests see it: kubectl, helm, a client of ours, a namespace of one's own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.kube.client import Client
from app.kube.endpoint import Endpoint
from tests.support import node
from tests.support.api import credentials
from tests.support.process import StageError
from tests.support.running import CHECKOUT
from tests.support.stage import KEEP_LOGS
from tests.support.tools import tool
from tests.support.workers import FATE

CRD = "agentpools.velda.io"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The administrator's view of a stage."""

    kubeconfig: Path
    directory: Path

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002  as subprocess.run calls it
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; with ``check`` a failure raises AssertionError with what it said."""
        return self._run("kubectl", args, stdin=input, check=check)

    def helm(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run("helm", args, stdin=None, check=check)

    def get(self, *args: str) -> Any:
        """``kubectl get … -o json``, decoded."""
        return json.loads(self.kubectl("get", *args, "--output=json").stdout)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """The product's own client, with the administrator's rights."""
        server, context = credentials(self.kubeconfig)

        async def source() -> Endpoint:
            return Endpoint(server=server, tls=context)

        async with Client(source, await source()) as client:
            yield client

    def install_crd(self) -> None:
        """The AgentPool CRD, by a plain ``kubectl apply``; returns once pools can be stored."""
        self.kubectl("apply", "-f", str(CHECKOUT / "crd" / "agentpools.velda.io.yaml"))
        self._established(CRD)

    @contextlib.contextmanager
    def with_crds(self, files: Mapping[str, Path]) -> Iterator[None]:
        """With the CRDs of others, by their names."""
        self.kubectl("apply", "--server-side", *(f"--filename={file}" for file in files.values()))
        for name in files:
            self._established(name)
        yield
        self.kubectl("delete", "crd", *files)

    def dry_run(self, *manifests: Mapping[str, Any], check: bool = True) -> subprocess.CompletedProcess[str]:
        """What the API server says of manifests, unknown fields included; nothing is stored."""
        options = ("--dry-run=server", "--server-side", "--validate=strict")
        return self.kubectl("apply", *options, "--filename=-", input=yaml.safe_dump_all(manifests), check=check)

    def sweep(self) -> None:
        """Remove what is cluster-wide of ours, whoever left it: webhooks, pools with their finalizers, the CRD."""
        webhooks = "validatingwebhookconfigurations,mutatingwebhookconfigurations"
        self.kubectl("delete", webhooks, "--all")
        self.kubectl("delete", "crd", CRD, "--ignore-not-found", "--wait=false")
        listed = self.kubectl("get", "agentpools", "--all-namespaces", "--output=json", check=False)
        for pool in json.loads(listed.stdout)["items"] if listed.returncode == 0 else ():
            name, where = pool["metadata"]["name"], f"--namespace={pool['metadata']['namespace']}"
            patch = '{"metadata": {"finalizers": null}}'
            self.kubectl("patch", "agentpool", name, where, "--type=merge", f"--patch={patch}", check=False)
        self.kubectl("wait", f"crd/{CRD}", "--for=delete", "--timeout=240s")

    def namespace(self) -> str:
        """A fresh namespace, ready for pods (its default service account exists)."""
        name = f"test-{uuid.uuid4().hex[:10]}"
        self.kubectl("create", "namespace", name)
        self.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=240s")
        return name

    def _established(self, crd: str) -> None:
        """Wait until objects of a CRD can be stored.

        A new CRD's conditions are null, which `kubectl wait --for=condition=` takes for an error; they are a list
        once its names are accepted.
        """
        for reached in (f"jsonpath={{.status.acceptedNames.plural}}={crd.partition('.')[0]}", "condition=Established"):
            self.kubectl("wait", f"crd/{crd}", f"--for={reached}", "--timeout=240s")

    def _run(
        self, name: str, args: tuple[str, ...], *, stdin: str | None, check: bool
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "HELM_CACHE_HOME": str(self.directory / "helm"),
        }
        command = [str(tool(name)), *args]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=environment, cwd=CHECKOUT, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{name} {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done


class Isolated(Cluster):
    """A stage from outside of its namespaces."""

    def address(self, service: str, port: int, *, namespace: str = "default") -> str:
        """What gRPC dials to reach a Service; the path after ``unix:`` is a socket for any other client."""
        return f"unix:{self.directory / 'services' / f'{namespace}.{service}.{port}'}"

    def decide(self, pod: str, fate: str, *, namespace: str = "default") -> None:
        """How the agent of a worker pod fares from now on: ``dead``, ``silent`` (see tests/support/workers.py)."""
        self.kubectl("annotate", "pod", pod, f"{FATE}={fate}", f"--namespace={namespace}", "--overwrite")


class Fleet(Isolated):
    """Our server's pods are processes, worker pods are agents of ours."""

    def log(self, pod: str) -> str:
        """What a pod of our server has printed, all its restarts together."""
        return (self.directory / "logs" / "pods" / f"{pod}.log").read_text(errors="replace")

    def processes(self, pod: str) -> list[int]:
        """The processes of a pod of our server, as the machine numbers them."""
        marker = f"HOSTNAME={pod}".encode()
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if marker in _words(path)]


class NodeStage(Isolated):
    """Pods on ``node`` are containers, those on other nodes are agents of ours."""

    node = node.NAME

    @contextlib.contextmanager
    def kubelet_hangs(self) -> Iterator[None]:
        """Its containers run on, and nothing that the API server wants of the node is done."""
        config = f"--config={self.directory / 'kubelet.yaml'}".encode()
        (kubelet,) = (int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if config in _words(path))
        os.kill(kubelet, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(kubelet, signal.SIGCONT)


def _words(path: Path) -> list[bytes]:
    """Of a process' environment or command line."""
    try:
        return path.read_bytes().split(b"\0")
    except OSError:
        return []


@contextlib.contextmanager
def stage_process(stage: str, *, keep_logs: Any = lambda: False) -> Iterator[dict[str, str]]:
    """Run a stage for as long as the context lasts; yields its description."""
    command = [sys.executable, "-m", "tests.support.stage", "run", stage]
    process = subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise StageError(f"the {stage} stage did not come up: see above")
        yield json.loads(line)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(KEEP_LOGS if keep_logs() else "")
            process.stdin.close()
        process.wait()
        process.stdout.close()
