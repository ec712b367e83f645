"""`helm test` finds what is wrong: each check against a server that is well, and against one that is not."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from aiohttp import web

from app import selftest
from app.kube.client import Client
from app.selftest import CheckError, check_accepted, check_broker, check_ready, check_refused, run
from certs.authority import KeyPair, issue_authority, issue_leaf
from tests.support.cluster import Cluster
from tests.support.running import CHECKOUT

AUTHORITY = issue_authority(now=datetime.now(UTC))


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    return _written(tmp_path / "ca.crt", AUTHORITY.certificate)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@contextlib.asynccontextmanager
async def webhook(
    directory: Path, *, status: int = 200, body: str = "ok", authority: KeyPair = AUTHORITY
) -> AsyncIterator[str]:
    """HOST:PORT of an HTTPS server that answers /readyz so."""
    leaf = issue_leaf(authority, names=["127.0.0.1"], now=datetime.now(UTC))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pem = _written(directory / "leaf.pem", leaf.certificate + leaf.key)
    context.load_cert_chain(pem)

    async def ready(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    app = web.Application()
    app.router.add_get("/readyz", ready)
    runner = web.AppRunner(app)
    await runner.setup()
    port = socket.create_server(("127.0.0.1", 0))
    try:
        await web.SockSite(runner, port, ssl_context=context).start()
        yield f"127.0.0.1:{port.getsockname()[1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def broker() -> AsyncIterator[str]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """An address where nothing listens, for as long as it lasts."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


async def test_readiness_is_asked_with_our_ca(tmp_path: Path, ca: Path) -> None:
    async with webhook(tmp_path) as host:
        await check_ready(host, ca)


async def test_one_that_is_not_ready_says_why(tmp_path: Path, ca: Path) -> None:
    async with webhook(tmp_path, status=503, body="the caches are not filled yet\n") as host:
        with pytest.raises(CheckError, match="503: the caches are not filled yet"):
            await check_ready(host, ca)


async def test_a_certificate_of_another_ca_is_not_taken(tmp_path: Path, ca: Path) -> None:
    async with webhook(tmp_path, authority=issue_authority(now=datetime.now(UTC))) as host:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await check_ready(host, ca)


async def test_a_secret_that_is_not_filled_yet_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="holds no certificate"):
        await check_ready("127.0.0.1:1", _written(tmp_path / "empty", b""))


async def test_the_broker_takes_connections() -> None:
    async with broker() as address:
        await check_broker(address)


async def test_an_api_server_that_does_not_ask_our_webhook_is_told(cluster: Cluster) -> None:
    """The CRD alone takes both pools."""
    cluster.kubectl("apply", "-f", str(CHECKOUT / "crd" / "agentpools.velda.io.yaml"))
    for condition in ("jsonpath={.status.acceptedNames.kind}=AgentPool", "condition=Established"):
        cluster.kubectl("wait", "crd/agentpools.velda.io", f"--for={condition}", "--timeout=30s")
    namespace = cluster.namespace()
    async with cluster.client() as client:
        await check_accepted(client, namespace)
        with pytest.raises(CheckError, match="does not ask our webhook"):
            await check_refused(client, namespace)
    assert cluster.get("agentpools", f"-n={namespace}")["items"] == []


@pytest.fixture
def api_is_well(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks that need the product's webhooks pass: on the fleet stage they are real."""

    async def passes(client: Client, namespace: str) -> None:
        """As if it had been asked."""

    monkeypatch.setattr(selftest, "check_accepted", passes)
    monkeypatch.setattr(selftest, "check_refused", passes)
    monkeypatch.setattr(selftest, "RETRY", 0.01)
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))


@pytest.mark.usefixtures("api_is_well")
def test_the_report_names_every_check_and_what_failed(
    ca: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selftest, "REQUEST_TIMEOUT", 0.2)
    with nobody() as free:
        assert run(namespace="default", broker=free, webhook=free, ca=ca, timeout=0) == 1
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert words == ["FAILED", "ok", "ok", "FAILED"]


@pytest.mark.usefixtures("api_is_well")
def test_what_is_not_well_yet_is_tried_again(
    ca: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def on_the_second_try() -> Callable[..., object]:
        tries = iter(range(2))

        async def check(*_: object) -> None:
            if next(tries) == 0:
                raise CheckError("not yet")

        return check

    for name in ("check_ready", "check_refused", "check_broker"):
        monkeypatch.setattr(selftest, name, on_the_second_try())
    assert run(namespace="default", broker="b:1", webhook="w", ca=ca, timeout=60) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ok"] * 4
