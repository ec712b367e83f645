"""`helm test`: does the release do what it is for? Asks from inside of the cluster, as users and agents would."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import typer

from app.kube import paths
from app.kube.client import Client
from app.kube.config import connect
from app.kube.errors import ApiError
from app.model.meta import API_VERSION, KIND
from app.settings import Kubernetes, SettingsError

RETRY = 1.0
REQUEST_TIMEOUT = 10.0
OTHER_POOL = "another-pool"


class CheckError(Exception):
    """A check has failed; the text says what was found."""


def run(*, namespace: str, broker: str, webhook: str, ca: Path, timeout: float) -> int:
    """Run all checks, each again until it passes or ``timeout`` seconds are over; the exit code.

    ``broker`` is HOST:PORT, ``webhook`` a host that serves HTTPS with a certificate of the CA in the file ``ca``;
    AgentPools are tried in ``namespace``, and none is stored.
    """
    try:
        return asyncio.run(_run(namespace, broker, webhook, ca, timeout))
    except SettingsError as error:
        typer.echo(f"FAILED  {error}")
        return 1


async def _run(namespace: str, broker: str, webhook: str, ca: Path, timeout: float) -> int:
    async with await connect(Kubernetes(namespace=namespace)) as client:
        checks: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            (f"https://{webhook}/readyz answers with a certificate of our CA", lambda: check_ready(webhook, ca)),
            ("a valid AgentPool is accepted", lambda: check_accepted(client, namespace)),
            ("an AgentPool with a wrong --pool is refused", lambda: check_refused(client, namespace)),
            (f"the broker at {broker} takes connections", lambda: check_broker(broker)),
        )
        deadline = asyncio.get_running_loop().time() + timeout
        problems = [await _eventually(name, check, deadline) for name, check in checks]
    return 1 if any(problems) else 0


async def _eventually(name: str, check: Callable[[], Awaitable[None]], deadline: float) -> bool:
    """Whether it never passed. Right after an installation a leader may still have to be found."""
    while True:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                await check()
        except (CheckError, ApiError, aiohttp.ClientError, OSError) as error:
            if asyncio.get_running_loop().time() + RETRY > deadline:
                typer.echo(f"FAILED  {name}: {str(error) or 'no answer in time'}")
                return True
            await asyncio.sleep(RETRY)
        else:
            typer.echo(f"ok      {name}")
            return False


async def check_ready(webhook: str, ca: Path) -> None:
    try:
        trusted = ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise CheckError(f"{ca} holds no certificate yet") from error
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.get(f"https://{webhook}/readyz", ssl=trusted) as answer,
    ):
        if answer.status != 200:
            raise CheckError(f"{answer.status}: {(await answer.text()).strip()}")


async def check_accepted(client: Client, namespace: str) -> None:
    await _dry_run(client, _pool(namespace))


async def check_refused(client: Client, namespace: str) -> None:
    """By the webhook: what the CRD's own schema refuses would prove nothing."""
    try:
        await _dry_run(client, _pool(namespace, args=[f"--pool={OTHER_POOL}"]))
    except ApiError as error:
        if error.status == 422 and OTHER_POOL in f"{error.message}{error.causes}":
            return
        raise
    raise CheckError("it was accepted: the API server does not ask our webhook")


async def check_broker(broker: str) -> None:
    async with grpc.aio.insecure_channel(broker) as channel:
        await channel.channel_ready()


async def _dry_run(client: Client, pool: dict[str, Any]) -> None:
    path = paths.agentpools(pool["metadata"]["namespace"])
    await client.create(path, pool, params={"dryRun": "All"}, timeout=REQUEST_TIMEOUT)


def _pool(namespace: str, **container: Any) -> dict[str, Any]:
    """One that any namespace takes, with the strictest pod security and a quota."""
    agent = {
        "name": "agent",
        "image": "veldaio/agent:latest",
        "resources": {key: {"cpu": "10m", "memory": "16Mi"} for key in ("requests", "limits")},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **container,
    }
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": f"velda-selftest-{secrets.token_hex(4)}", "namespace": namespace},
        "spec": {
            "autoscaler": {"maxReplicas": 1, "minIdle": 0, "maxIdle": 1},
            "template": {
                "metadata": {"labels": {"app": "velda-selftest"}},
                "spec": {"containers": [agent], "securityContext": security},
            },
        },
    }
