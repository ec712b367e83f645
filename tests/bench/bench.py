"""What every figure works with: a plane, a client, a watcher from outside, and the line that it prints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from app.kube import paths
from app.kube.client import Client
from app.kube.informer import Informer
from app.model.meta import ObjectMeta
from tests.bench.process import Process
from tests.support.cluster import Cluster
from tests.support.running import CHECKOUT

LABEL = "bench"
QUIET = 3.0
"""Seconds without a change after which pools are at rest."""
IDLE = 0.15
"""Of a core: what a control plane at rest takes less than."""
IDENTITY = ("serviceaccount", "rbac", "state")
"""Templates of the chart by which a server is who it is."""


class Phase(msgspec.Struct, frozen=True):
    phase: str = ""


class Seen(msgspec.Struct, frozen=True):
    """What the watcher reads of a pod."""

    metadata: ObjectMeta = ObjectMeta()
    status: Phase = Phase()


class Known(msgspec.Struct, frozen=True):
    """What is read of a pool."""

    metadata: ObjectMeta = ObjectMeta()


class Bench:
    """``say`` tells progress on standard error; lines of figures go to standard output."""

    def __init__(self, cluster: Cluster, client: Client, *, quiet: float = QUIET) -> None:
        self.cluster = cluster
        self.client = client
        self._quiet = quiet
        self.failed: list[str] = []

    @property
    def directory(self) -> Path:
        return self.cluster.directory

    def say(self, text: str) -> None:
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)

    def line(self, figure: str, *, ok: bool, **values: Any) -> None:
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
        print(json.dumps({"figure": figure, "ok": ok, **rounded}), flush=True)
        if not ok:
            self.failed.append(figure)

    async def namespace(self) -> str:
        return await asyncio.to_thread(self.cluster.namespace)

    async def remove(self, namespace: str) -> None:
        """Everything in it, the quick way, and wait until no pod is left."""
        pods = await self.count(namespace)
        self.say(f"clearing {namespace} ({pods} pods)")
        everything = ("delete", "agentpools,replicasets", "--all", f"-n={namespace}", "--wait=false")
        await asyncio.to_thread(self.cluster.kubectl, *everything)
        await asyncio.to_thread(
            self.cluster.kubectl, "wait", "agentpools", "--all", f"-n={namespace}", "--for=delete", "--timeout=180s"
        )
        await asyncio.to_thread(
            self.cluster.kubectl, "delete", "pods", "--all", f"-n={namespace}", "--wait=false", "--grace-period=0"
        )
        async with self.watching(namespace) as watch:
            await watch.reaches(0, timeout=120)
        await asyncio.to_thread(self.cluster.kubectl, "delete", "namespace", namespace, "--wait=false")

    async def count(self, namespace: str) -> int:
        body = await self.client.get(paths.pods(namespace), params={"labelSelector": LABEL})
        return len(msgspec.json.decode(body)["items"])

    async def at_rest(self, namespace: str) -> None:
        """Wait until the server has written what it has to say of the pools, and nothing more for a while."""
        changed = asyncio.Event()
        informer = Informer(
            self.client, path=paths.agentpools(namespace), type=Known, on_change=lambda old, new: changed.set()
        )
        following = asyncio.create_task(informer.run())
        try:
            await informer.synced.wait()
            with contextlib.suppress(TimeoutError):
                while True:
                    changed.clear()
                    await asyncio.wait_for(changed.wait(), timeout=self._quiet)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def idle(self, *processes: Process) -> None:
        """Wait until they have nothing more to do: what was removed is cleared away long after it is out of sight."""
        async with asyncio.timeout(120):
            while sum(await asyncio.gather(*(process.core_share(self._quiet) for process in processes))) >= IDLE:
                pass

    @contextlib.asynccontextmanager
    async def account(self) -> AsyncIterator[tuple[Path, str]]:
        """A kubeconfig of the service account that the chart makes, with the chart's rights and a token; and the
        namespace of both.

        An administrator's certificate would be verified for each request, and is not what a server in a cluster has.
        """
        namespace = await self.namespace()
        shown = (f"--show-only=templates/{name}.yaml" for name in IDENTITY)
        chart = str(CHECKOUT / "chart")
        manifests = (
            await asyncio.to_thread(self.cluster.helm, "template", "velda", chart, f"-n={namespace}", *shown)
        ).stdout
        await asyncio.to_thread(self.cluster.kubectl, "apply", "-f", "-", input=manifests)
        try:
            created = await asyncio.to_thread(
                self.cluster.kubectl, "create", "token", "velda-apiserver", f"-n={namespace}", "--duration=24h"
            )
            document = yaml.safe_load(self.cluster.kubeconfig.read_text())
            document["users"][0]["user"] = {"token": created.stdout.strip()}
            (path := self.directory / f"{namespace}.kubeconfig").touch(mode=0o600)
            path.write_text(yaml.safe_dump(document))
            yield path, namespace
        finally:
            await asyncio.to_thread(self.cluster.kubectl, "delete", "-f", "-", input=manifests)
            await asyncio.to_thread(self.cluster.kubectl, "delete", "namespace", namespace, "--wait=false")

    @contextlib.asynccontextmanager
    async def watching(self, namespace: str | None) -> AsyncIterator[Watch]:
        watch = Watch(self.client, namespace)
        task = asyncio.create_task(watch.informer.run())
        try:
            await watch.informer.synced.wait()
            yield watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Watch:
    """Counts the bench's pods from outside; ``peak`` is the most that there ever were.

    ``created`` and ``started`` get each pod as it appears and as it runs, with the time (perf_counter seconds).
    """

    def __init__(self, client: Client, namespace: str | None) -> None:
        self.count = self.running = self.peak = 0
        self.created: asyncio.Queue[tuple[float, ObjectMeta]] = asyncio.Queue()
        self.started: asyncio.Queue[tuple[float, ObjectMeta]] = asyncio.Queue()
        self._changed = asyncio.Event()
        self.informer = Informer(
            client, path=paths.pods(namespace), type=Seen, on_change=self._on_change, label_selector=LABEL
        )

    async def reaches(self, count: int, *, timeout: float, running: bool = False) -> None:
        async with asyncio.timeout(timeout):
            while (self.running if running else self.count) != count:
                self._changed.clear()
                await self._changed.wait()

    def _on_change(self, old: Seen | None, new: Seen | None) -> None:
        now = time.perf_counter()
        was_running, runs = _runs(old), _runs(new)
        self.count += (new is not None) - (old is not None)
        self.running += runs - was_running
        self.peak = max(self.peak, self.count)
        if old is None and new is not None:
            self.created.put_nowait((now, new.metadata))
        if new is not None and runs and not was_running:
            self.started.put_nowait((now, new.metadata))
        self._changed.set()


def _runs(pod: Seen | None) -> bool:
    return pod is not None and pod.status.phase == "Running"


def template() -> dict[str, Any]:
    """The pod that both sides make: of the documentation's shape, small enough for any node."""
    container = {
        "name": "agent",
        "image": "veldaio/agent:latest",
        "securityContext": {"privileged": True},
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "volumeMounts": [{"name": "velda-config", "mountPath": "/run/velda"}],
    }
    volumes = [{"name": "velda-config", "configMap": {"name": "velda-config"}}]
    return {"metadata": {"labels": {LABEL: "yes"}}, "spec": {"containers": [container], "volumes": volumes}}


def pool(name: str, **autoscaler: int) -> dict[str, Any]:
    limits = {"maxReplicas": 1000, "minIdle": 0, "maxIdle": 1000, "joinTimeoutSecond": 86400} | autoscaler
    return {
        "apiVersion": "velda.io/v1",
        "kind": "AgentPool",
        "metadata": {"name": name},
        "spec": {"autoscaler": limits, "template": template()},
    }


def percentile(values: Sequence[float], share: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]
