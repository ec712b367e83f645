"""How long an AgentPool waits for our webhooks, also while certificates change and replicas come and go."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from app.kube import paths
from certs.authority import issue_authority, issue_leaf
from tests.bench import load
from tests.bench.bench import Bench, pool
from tests.bench.webhooks import Measured, Times, Webhooks, webhooks
from tests.support.process import bound, free_port
from tests.support.running import CHECKOUT
from tests.support.tools import tool

P50, P99, AT_ONCE_P99 = 3, 10, 100
"""Milliseconds."""
PATIENCE = 60.0


class Result(NamedTuple):
    calls: load.Calls
    ours: Measured
    """Of the replicas, in that time."""

    def line(self, name: str) -> dict[str, float]:
        """Our part as the server measures it, the part of it that waited for the API server, and the whole create."""
        wait = self.ours["wait"]
        return {
            f"{name}p50": self.p50,
            f"{name}p99": self.p99,
            f"{name}wait_p50": wait.percentile(0.5),
            f"{name}wait_p99": wait.percentile(0.99),
            f"{name}create_p50": self.calls.p50,
            f"{name}create_p99": self.calls.p99,
        }

    @property
    def p50(self) -> float:
        return self.ours["validate"].percentile(0.5)

    @property
    def p99(self) -> float:
        return self.ours["validate"].percentile(0.99)


class Peer(NamedTuple):
    """A webhook that is posted to without an API server between."""

    url: str
    ca: Path
    name: str = ""
    expect: str = '"allowed":true'


async def measure(
    bench: Bench, *, rate: int = 200, seconds: float = 20.0, rotations: int = 20, at_once: int = 200
) -> None:
    """Line ``admission``: creates by dry-run through the API server, ``rate`` a second; then reviews straight to us and
    to the same webhook by others.

    ``fresh``: each pool has a template that was never seen; a tenth as many, since a pod is tried for each.
    ``changing``: while the CA is replaced and replicas are.
    """
    namespace = await bench.namespace()
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(webhooks(bench, namespace))
        creating = _Creating(bench, ours, namespace)
        bench.say("creates, their templates known, fresh, and at once")
        steady = await creating.during(asyncio.sleep(seconds), rate=rate)
        fresh = await creating.during(asyncio.sleep(seconds / 2), fresh=True, rate=rate / 10)
        most = await creating.during(asyncio.sleep(seconds / 2), clients=at_once)
        changing = await creating.during(_change(bench, ours, rotations), rate=rate)
        direct = await _direct(bench, stack, ours, namespace, rate=rate, seconds=seconds / 2, at_once=at_once)
    everything = (steady.calls, fresh.calls, most.calls, changing.calls, *direct.values())
    failed = [calls.error for calls in everything if calls.failed]
    bench.line(
        "admission",
        ok=not failed
        and all(found.p50 <= P50 and found.p99 <= P99 for found in (steady, changing, direct["direct"]))
        and most.p99 <= AT_ONCE_P99,
        unit="ms",
        **steady.line(""),
        limit_p50=P50,
        limit_p99=P99,
        creates_a_second=rate,
        creates=steady.calls.calls,
        **fresh.line("fresh_"),
        **changing.line("changing_"),
        changing_creates=changing.calls.calls,
        rotations=rotations,
        restarts=len(ours.replicas),
        **most.line("at_once_"),
        at_once=at_once,
        at_once_a_second=most.calls.rate,
        limit_at_once_p99=AT_ONCE_P99,
        **{f"{name}_p50": calls.p50 for name, calls in direct.items()},
        **{f"{name}_p99": calls.p99 for name, calls in direct.items()},
        **{f"{name}_a_second": calls.rate for name, calls in direct.items() if name.endswith("at_once")},
        direct_is="reviews straight to one process over HTTPS; kopf and go decode and allow, and ask nobody",
        failed=failed,
    )


async def _change(bench: Bench, ours: Webhooks, rotations: int) -> None:
    async def rotate() -> None:
        for number in range(rotations):
            await ours.rotate()
            bench.say(f"CA {number + 1} of {rotations} is in place")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rotate())
        for replica in ours.replicas:
            await ours.restart(replica)
            bench.say("a replica was started again")


class _Creating:
    """A client of the API server, the administrator."""

    def __init__(self, bench: Bench, ours: Webhooks, namespace: str) -> None:
        self._bench = bench
        self._ours = ours
        document = yaml.safe_load(bench.cluster.kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self._flags = {
            "url": f"{cluster['server']}{paths.agentpools(namespace)}?dryRun=All",
            "ca": self._decoded("ca", cluster["certificate-authority-data"]),
            "cert": self._decoded("cert", user["client-certificate-data"]),
            "key": self._decoded("key", user["client-key-data"]),
            "expect": '"AgentPool"',
        }

    async def during(self, something: Any, *, fresh: bool = False, **flags: object) -> Result:
        """Load for as long as something is awaited."""
        body = _written(self._bench, "pool", msgspec.json.encode(_pool(fresh=fresh)))
        before = await self._ours.measured()
        async with load.posting(body=body, **self._flags, **flags) as creating:
            await something
        after = await self._ours.measured()
        return Result(creating.calls, {name: times - before.get(name, Times({})) for name, times in after.items()})

    def _decoded(self, name: str, data: str) -> Path:
        return _written(self._bench, f"admin-{name}", base64.b64decode(data))


async def _direct(
    bench: Bench, stack: AsyncExitStack, ours: Webhooks, namespace: str, *, rate: int, seconds: float, at_once: int
) -> dict[str, load.Calls]:
    """The peers in turns, and nobody else meanwhile."""
    (authority,) = await ours.authorities()
    url = f"{ours.replicas[0].server.https}/validate"
    peers = {"direct": Peer(url, _written(bench, "ours", authority), ours.name)}
    peers["kopf"] = await stack.enter_async_context(_peer(bench, "kopf"))
    peers["go"] = await stack.enter_async_context(_peer(bench, "go"))
    body = _written(bench, "review", msgspec.json.encode(_review(namespace)))
    found: dict[str, load.Calls] = {}
    for ending, flags in (("", {"rate": rate}), ("_at_once", {"clients": at_once})):
        for name, peer in peers.items():
            bench.say(f"reviews to {name}{ending}")
            async with load.posting(**peer._asdict(), body=body, **flags) as posting:
                await asyncio.sleep(seconds)
            found[f"{name}{ending}"] = posting.calls
    return found


@contextlib.asynccontextmanager
async def _peer(bench: Bench, kind: str) -> AsyncIterator[Peer]:
    """The process of another webhook."""
    now, port = datetime.now(UTC), free_port()
    authority = issue_authority(now=now)
    leaf = issue_leaf(authority, names=["127.0.0.1"], now=now)
    certificate = _written(bench, f"{kind}-cert", leaf.certificate)
    key = _written(bench, f"{kind}-key", leaf.key)
    commands = {
        "kopf": (sys.executable, "-m", "tests.bench.kopf_webhook", str(port), certificate, key),
        "go": (tool("velda-load"), "webhook", f"-listen=127.0.0.1:{port}", f"-cert={certificate}", f"-key={key}"),
    }
    with (bench.directory / f"{kind}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *bound(*commands[kind]),
            cwd=CHECKOUT,
            env={**os.environ, "KUBECONFIG": str(bench.cluster.kubeconfig)},
            stdout=log,
            stderr=log,
        )
    try:
        await _listens(port)
        peer = Peer(f"https://127.0.0.1:{port}/validate", _written(bench, f"{kind}-ca", authority.certificate))
        yield peer._replace(expect='"allowed": true') if kind == "kopf" else peer
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)  # another process' port has no event


def _pool(*, fresh: bool = False) -> dict[str, Any]:
    """The client numbers it."""
    made = pool("pool-@@", maxReplicas=10, maxIdle=10)
    if fresh:
        made["spec"]["template"]["metadata"]["annotations"] = {"number": "@@"}
    return made


def _review(namespace: str) -> dict[str, Any]:
    """As the API server asks."""
    made = _pool()
    made["metadata"] |= {"namespace": namespace, "uid": "7f0b2891-916f-4ed6-b7cd-27bff1815a8c", "generation": 1}
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-@@",
        "kind": {"group": "velda.io", "version": "v1", "kind": "AgentPool"},
        "resource": {"group": "velda.io", "version": "v1", "resource": "agentpools"},
        "requestKind": {"group": "velda.io", "version": "v1", "kind": "AgentPool"},
        "requestResource": {"group": "velda.io", "version": "v1", "resource": "agentpools"},
        "name": "pool-@@",
        "namespace": namespace,
        "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
        "object": made,
        "oldObject": None,
        "dryRun": True,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"]},
    }
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def _written(bench: Bench, name: str, content: bytes) -> Path:
    path = bench.directory / f"admission-{name}"
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path
