"""`helm test`: does the release do what it is for? Asks from inside of the cluster, as users and agents would."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import aiohttp
import grpc
import typer

from app.kube import paths
from app.kube.client import Client
from app.kube.config import connect
from app.kube.errors import ApiError
from app.model.meta import API_VERSION, KIND
from app.proto import velda_pb2, velda_pb2_grpc
from app.settings import Kubernetes, SettingsError

RETRY = 1.0
SOON, TELL = 2.0, 10.0
"""Seconds until a check that does not pass is told of, and between two times."""
REQUEST_TIMEOUT = 10.0
OTHER_POOL = "another-pool"


Security = Literal["plaintext", "tls", "mtls"]
Check = tuple[str, Callable[[], Awaitable[None]]]


class CheckError(Exception):
    """A check has failed; the text says what was found."""


def run(*, namespace: str, broker: str, security: Security, webhook: str, ca: Path, timeout: float) -> int:
    """Run all checks, each again until it passes or ``timeout`` seconds are over; the exit code.

    ``broker`` is HOST:PORT, ``webhook`` a host that serves HTTPS with a certificate of the CA in the file ``ca``;
    AgentPools are tried in ``namespace``, and none is stored.
    """
    try:
        checked = _run(namespace=namespace, broker=broker, security=security, webhook=webhook, ca=ca, timeout=timeout)
        return asyncio.run(checked)
    except SettingsError as error:
        typer.echo(f"FAILED  {error}")
        return 1


async def _run(*, namespace: str, broker: str, security: Security, webhook: str, ca: Path, timeout: float) -> int:
    async with await connect(Kubernetes(namespace=namespace)) as client:
        checks: tuple[Check, ...] = (
            (f"https://{webhook}/readyz answers with a certificate of our CA", lambda: check_ready(webhook, ca)),
            ("a valid AgentPool is accepted", lambda: check_accepted(client, namespace)),
            ("an AgentPool with a wrong --pool is refused", lambda: check_refused(client, namespace)),
            _broker_check(client, broker, security, namespace, ca),
        )
        deadline = asyncio.get_running_loop().time() + timeout
        problems = [await _eventually(name, check, deadline) for name, check in checks]
    return 1 if any(problems) else 0


def _broker_check(client: Client, broker: str, security: Security, namespace: str, ca: Path) -> Check:
    """Where it is for agents alone, no more is to be seen than whether it is ours."""
    if security == "mtls":
        return f"the broker at {broker} shows a certificate of our CA", lambda: check_certificate(broker, ca)
    trusted = ca if security == "tls" else None
    return f"the broker at {broker} knows who we are", lambda: check_broker(client, broker, namespace, ca=trusted)


async def _eventually(name: str, check: Callable[[], Awaitable[None]], deadline: float) -> bool:
    """Whether it never passed. Right after an installation a leader may still have to be found."""
    clock = asyncio.get_running_loop().time
    due = clock() + SOON
    while True:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                await check()
        except (CheckError, ApiError, aiohttp.ClientError, OSError) as error:
            why = str(error) or "no answer in time"
            if clock() + RETRY > deadline:
                typer.echo(f"FAILED  {name}: {why}")
                return True
            if clock() >= due:
                typer.echo(f"not yet {name}: {why}")
                due = clock() + TELL
            await asyncio.sleep(RETRY)
        else:
            typer.echo(f"ok      {name}")
            return False


async def check_ready(webhook: str, ca: Path) -> None:
    trusted = _trusting(ca)
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


async def check_certificate(broker: str, ca: Path) -> None:
    host, _, port = broker.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=_trusting(ca))
    writer.transport.abort()


def _trusting(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise CheckError(f"{ca} holds no certificate yet") from error


async def check_broker(client: Client, broker: str, namespace: str, *, ca: Path | None = None) -> None:
    """That there is no such pool it tells only to whom the API server knows by our token, and RBAC lets look.

    With ``ca`` over TLS.
    """
    async with _channel(broker, ca) as channel:
        pools = velda_pb2_grpc.PoolManagerServiceStub(channel)
        metadata = (("authorization", await client.authorization()),)
        try:
            request = velda_pb2.GetPoolRequest(pool=f"{namespace}/{_name()}")
            await pools.GetPool(request, metadata=metadata, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise CheckError(f"{error.code().name}: {error.details()}") from error


def _channel(broker: str, ca: Path | None) -> grpc.aio.Channel:
    if ca is None:
        return grpc.aio.insecure_channel(broker)
    return grpc.aio.secure_channel(broker, grpc.ssl_channel_credentials(ca.read_bytes()))


async def _dry_run(client: Client, pool: dict[str, Any]) -> None:
    path = paths.agentpools(pool["metadata"]["namespace"])
    await client.create(path, pool, params={"dryRun": "All"}, timeout=REQUEST_TIMEOUT)


def _name() -> str:
    return f"velda-selftest-{secrets.token_hex(4)}"


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
        "metadata": {"name": _name(), "namespace": namespace},
        "spec": {
            "autoscaler": {"maxReplicas": 1, "minIdle": 0, "maxIdle": 1},
            "template": {
                "metadata": {"labels": {"app": "velda-selftest"}},
                "spec": {"containers": [agent], "securityContext": security},
            },
        },
    }
