"""Two replicas behind a Service, registered as the chart registers them: what the API server calls for admission."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import msgspec
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.kube import paths
from app.model.meta import NamespacedName
from certs.material import blocks
from certs.store import ROTATE_ANNOTATION
from tests.bench import load
from tests.bench.bench import Bench
from tests.bench.process import Server, serving

DRAIN = 2.0
"""Seconds that a replica answers for after SIGTERM."""
METRICS = {"velda_admission_seconds", "velda_admission_wait_seconds"}
PATIENCE = 120.0


@dataclass(frozen=True)
class Times:
    """A histogram of Prometheus: how many took at most so many seconds."""

    counts: dict[float, float]

    def __add__(self, other: Times) -> Times:
        keys = self.counts.keys() | other.counts.keys()
        return Times({key: self.counts.get(key, 0) + other.counts.get(key, 0) for key in sorted(keys)})

    def __sub__(self, other: Times) -> Times:
        return self + Times({key: -count for key, count in other.counts.items()})

    def percentile(self, share: float) -> float:
        """In milliseconds; within a bucket all lie at equal distances."""
        wanted, low, below = share * max(self.counts.values(), default=0), 0.0, 0.0
        for high, count in self.counts.items():
            if count >= wanted and count > below:
                return 1000 * (low + (high - low) * (wanted - below) / (count - below))
            low, below = high, count
        return 0.0


Measured = dict[str, Times]
"""``validate``: whole answers; ``wait``: the part of them that waited for the API server."""


class Replica:
    """A server that has a pod's name, and is started again as often as is wanted."""

    def __init__(self, bench: Bench, pod: NamespacedName, settings: str) -> None:
        self._bench = bench
        self._pod = pod
        self._settings = settings
        self._stack = AsyncExitStack()
        self.server: Server

    @property
    def address(self) -> str:
        return self.server.https.removeprefix("https://")

    async def start(self) -> None:
        """Returns once it is ready."""
        self.server = await self._stack.enter_async_context(
            serving(
                self._bench.cluster.kubeconfig,
                self._bench.directory,
                settings=self._settings,
                server=f"metrics: open, drain_seconds: {DRAIN}",
                environment={"POD_NAME": self._pod.name, "POD_NAMESPACE": self._pod.namespace},
            )
        )
        async with asyncio.timeout(PATIENCE):
            while not await self._ready():  # noqa: ASYNC110  another process has no event for us
                await asyncio.sleep(0.05)

    async def stop(self) -> Measured:
        """What it has measured until then."""
        stopping = asyncio.create_task(self.close())
        await asyncio.sleep(DRAIN * 0.75)
        measured = await self.measured()
        await stopping
        return measured

    async def close(self) -> None:
        await self._stack.aclose()

    async def measured(self) -> Measured:
        async with _get(f"{self.server.https}/metrics") as answer:
            text = await answer.text()
        found: Measured = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples if family.name in METRICS else ():
                if sample.name.endswith("_bucket"):
                    times = found.setdefault(sample.labels.get("webhook", "wait"), Times({}))
                    times.counts[float(sample.labels["le"])] = sample.value
        return found

    async def _ready(self) -> bool:
        try:
            async with _get(f"{self.server.https}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


class Webhooks:
    """``address`` is the Service's, ``name`` what the API server calls it by."""

    def __init__(self, bench: Bench, namespace: str, manifests: Sequence[dict[str, Any]], address: str) -> None:
        self._bench = bench
        configuration = manifests[0]["metadata"]["name"]
        service = manifests[0]["webhooks"][0]["clientConfig"]["service"]["name"]
        settings = (
            f"webhook: {{service: {service}, certificate_secret: {configuration}, "
            f"validating_configuration: {configuration}, mutating_configuration: {configuration}, "
            "ca_overlap_seconds: 1}\n"
        )
        self._configuration = paths.validating_webhook(configuration)
        self._secret = NamespacedName(namespace, configuration)
        self._ended: list[Measured] = []
        self.replicas = [Replica(bench, NamespacedName(namespace, f"server-{i}"), settings) for i in range(2)]
        self.address = address
        self.name = f"{service}.{namespace}.svc"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        async with load.front(self.address) as self._front, AsyncExitStack() as stack:
            for replica in self.replicas:
                await replica.start()
                stack.push_async_callback(replica.close)
            await self._lead(self.replicas)
            yield self

    async def authorities(self) -> list[bytes]:
        """The CAs (PEM) that the API server trusts it by."""
        manifest = msgspec.json.decode(await self._bench.client.get(self._configuration))
        return blocks(base64.b64decode(manifest["webhooks"][0]["clientConfig"]["caBundle"]))

    async def rotate(self) -> None:
        """A new CA, and a leaf of it; returns when the old one is trusted no more."""
        old = await self.authorities()
        request = {"metadata": {"annotations": {ROTATE_ANNOTATION: "ca"}}}
        await self._bench.client.merge_patch(paths.secret(self._secret), request)
        async with asyncio.timeout(PATIENCE):
            while len(now := await self.authorities()) != 1 or now == old:  # noqa: ASYNC110  the same
                await asyncio.sleep(0.1)

    async def restart(self, replica: Replica) -> None:
        """As a Deployment does: first nobody is led to it any more, then it ends, and again when it is ready."""
        await self._lead([other for other in self.replicas if other is not replica])
        self._ended.append(await replica.stop())
        await replica.start()
        await self._lead(self.replicas)

    async def measured(self) -> Measured:
        """By all replicas that there were."""
        parts = [*self._ended, *[await replica.measured() for replica in self.replicas]]
        total: Measured = {}
        for part in parts:
            for name, times in part.items():
                total[name] = total.get(name, Times({})) + times
        return total

    async def _lead(self, replicas: Sequence[Replica]) -> None:
        await self._front.lead(replica.address for replica in replicas)


@contextlib.asynccontextmanager
async def webhooks(bench: Bench, namespace: str) -> AsyncIterator[Webhooks]:
    """Both webhooks for that namespace alone."""
    values = (f"fullnameOverride={namespace}", f"namespaces={{{namespace}}}")
    rendered = await asyncio.to_thread(
        bench.cluster.helm,
        *("template", "velda", "chart", f"--namespace={namespace}", "--show-only=templates/webhooks.yaml"),
        *(f"--set={value}" for value in values),
    )
    manifests = list(yaml.safe_load_all(rendered.stdout))
    service = manifests[0]["webhooks"][0]["clientConfig"]["service"]
    address = await _service(bench, namespace, service["name"], service["port"])
    for number in range(2):
        await bench.client.create(paths.pods(namespace), _pod(f"server-{number}"))
    await asyncio.to_thread(bench.cluster.kubectl, "apply", "--filename=-", input=rendered.stdout)
    try:
        async with Webhooks(bench, namespace, manifests, address).running() as running:
            yield running
    finally:
        await asyncio.to_thread(bench.cluster.kubectl, "delete", "--filename=-", input=rendered.stdout)
        await asyncio.to_thread(bench.cluster.kubectl, "delete", "namespace", namespace, "--wait=false")


async def _service(bench: Bench, namespace: str, name: str, port: int) -> str:
    """One whose address is on loopback and has nobody behind it yet; HOST:PORT."""
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": port}]}}
    made = await bench.client.create(f"/api/v1/namespaces/{namespace}/services", manifest)
    return f"{msgspec.json.decode(made)['spec']['clusterIP']}:{port}"


def _pod(name: str) -> dict[str, Any]:
    """A replica's, by which it is counted; it never finds a node."""
    spec = {"containers": [{"name": "server", "image": "none"}], "nodeSelector": {"none": "none"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@contextlib.asynccontextmanager
async def _get(url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    async with aiohttp.ClientSession() as session, session.get(url, ssl=False) as answer:
        yield answer
