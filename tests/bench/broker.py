"""What thousands of agents cost the server, and how fast it hands sessions to them."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from app.kube import paths
from tests.bench import echo, load
from tests.bench.bench import Bench, Watch, pool
from tests.bench.process import Server, serving
from tests.support.process import free_port

A_POOL = 1000
"""Agents of one pool at most."""
SETTLE = 35.0
"""Seconds until each agent's first heartbeat has come."""
PATIENCE = 300.0
CLIENTS = 64
"""That call at once, at saturation."""
USER = "bench-user"


async def agents(bench: Bench, *, count: int = 5000, settle: float = SETTLE, rest: float = 30.0) -> None:
    """Line ``agents``: pods on fake nodes, their agents in another process, a connection and heartbeats each."""
    namespace, port = await bench.namespace(), free_port()
    async with bench.watching(namespace) as watch, AsyncExitStack() as stack:
        await _grow(bench, watch, namespace, count)
        async with _server(bench, port) as server:
            await server.logged("broker listens")
            await bench.at_rest(namespace)
            before = server.resident_bytes()
            crew = await stack.enter_async_context(load.crew(server.broker, watch))
            await crew.reach(count, timeout=PATIENCE)
            await asyncio.sleep(settle)
            share = await server.core_share(rest)
            each = (server.resident_bytes() - before) / count / 1000
            began = time.perf_counter()
        await crew.reach(0, timeout=PATIENCE)
        async with _server(bench, port):
            await crew.reach(count, timeout=PATIENCE)
            seconds = time.perf_counter() - began
            await bench.remove(namespace)
    bench.line(
        "agents",
        ok=each <= 60 and share <= 0.25 and seconds <= 20,
        agents=count,
        resident_kb_each=each,
        limit_resident_kb_each=60,
        core_share=share,
        limit_core_share=0.25,
        rejoined_seconds=seconds,
        limit_rejoined_seconds=20,
    )


async def dispatch(bench: Bench, *, count: int = 200, rate: int = 200, seconds: float = 20.0) -> None:
    """Line ``dispatch``: clients, agents and server in a process each; RequestSession until it returns RUNNING.

    Calls begin at random times, ``rate`` a second; then as many as the server can take, beside a plain call.
    """
    namespace, port = await bench.namespace(), free_port()
    async with bench.watching(namespace) as watch, AsyncExitStack() as stack:
        await _grow(bench, watch, namespace, count)
        request: dict[str, Any] = {"pool": f"{namespace}/agents-0", "seconds": seconds}
        async with _server(bench, port) as server:
            await server.logged("broker listens")
            crew = await stack.enter_async_context(load.crew(server.broker, watch))
            await crew.reach(count, timeout=PATIENCE)
            await bench.at_rest(namespace)  # the agents are idle, as the figure has it, and known to be
            steady = await load.calls(server.broker, rate=rate, **request)
            most = await load.calls(server.broker, clients=CLIENTS, **request)
        async with load.echoing() as plain:
            limit = await load.calls(plain, method=echo.METHOD, clients=CLIENTS, **request)
        async with _server(bench, port, clients="kubernetes") as server:
            await crew.reach(count, timeout=PATIENCE)
            await bench.at_rest(namespace)
            token = await asyncio.to_thread(_user, bench, namespace)
            secured = await load.calls(server.broker, rate=rate, token=token, **request)
            await bench.remove(namespace)
    failed = [calls.error for calls in (steady, most, limit, secured) if calls.failed]
    bench.line(
        "dispatch",
        ok=steady.p50 <= 5 and steady.p99 <= 25 and not failed,
        unit="ms",
        p50=steady.p50,
        p99=steady.p99,
        limit_p50=5,
        limit_p99=25,
        sessions_a_second=rate,
        samples=steady.calls,
        agents=count,
        most_a_second=most.rate,
        plain_calls_a_second=limit.rate,
        share=most.rate / limit.rate,
        p50_with_token=secured.p50,
        p99_with_token=secured.p99,
        failed=failed,
    )


def _server(bench: Bench, port: int, *, clients: str = "none") -> AbstractAsyncContextManager[Server]:
    return serving(bench.cluster.kubeconfig, bench.directory, port=port, clients=clients)


async def _grow(bench: Bench, watch: Watch, namespace: str, count: int) -> None:
    """Pools with so many running pods in all, made by a server of their own: it takes its garbage with it."""
    bench.say(f"growing to {count} pods")
    async with serving(bench.cluster.kubeconfig, bench.directory):
        for number, first in enumerate(range(0, count, A_POOL)):
            body = pool(f"agents-{number}", minReplicas=min(A_POOL, count - first))
            await bench.client.create(paths.agentpools(namespace), body)
        await watch.reaches(count, timeout=PATIENCE, running=True)
        await bench.at_rest(namespace)


def _user(bench: Bench, namespace: str) -> str:
    """The token of somebody who may start sessions there."""
    for words in (
        ("serviceaccount", USER),
        ("role", USER, "--verb=create", "--resource=agentpools.velda.io/session"),
        ("rolebinding", USER, f"--role={USER}", f"--serviceaccount={namespace}:{USER}"),
    ):
        bench.cluster.kubectl("create", *words, f"--namespace={namespace}")
    return bench.cluster.kubectl("create", "token", USER, f"--namespace={namespace}").stdout.strip()
