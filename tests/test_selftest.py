"""What `helm test` says about a release that is not in order; that it passes on a good one, tests/chart shows."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.selftest import (
    CheckError,
    _eventually,
    check_accepted,
    check_broker,
    check_certificate,
    check_ready,
    check_refused,
    run,
)
from tests.support.cluster import Cluster
from tests.support.pki import Pki


@pytest.fixture(scope="module")
def crd(cluster: Cluster) -> Cluster:
    """The CRD alone: nobody answers webhooks, and none are asked."""
    cluster.install_crd()
    return cluster


@pytest.fixture
def closed() -> Iterator[str]:
    """An address that nobody listens on."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


async def test_a_wrong_pool_that_passes_is_a_failure(crd: Cluster) -> None:
    namespace = crd.namespace()
    async with crd.client() as client:
        await check_accepted(client, namespace)
        with pytest.raises(CheckError, match="does not ask our webhook"):
            await check_refused(client, namespace)
    assert not crd.get("agentpools", f"-n={namespace}")["items"]


async def test_the_ca_must_be_there(tmp_path: Path) -> None:
    (empty := tmp_path / "ca.crt").write_text("")
    with pytest.raises(CheckError, match="no certificate yet"):
        await check_ready("127.0.0.1", empty)


async def test_a_broker_must_speak_grpc(crd: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        async with crd.client() as client, asyncio.timeout(0.5):
            await check_broker(client, f"127.0.0.1:{silent.getsockname()[1]}", "default")


async def test_a_broker_that_speaks_tls_must_have_a_certificate_of_the_ca(crd: Cluster, tmp_path: Path) -> None:
    own, other = Pki(tmp_path / "own"), Pki(tmp_path / "other")
    certificate, key = own.issue_server("server", hosts=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        broker = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await check_certificate(broker, own.ca)
        with pytest.raises(ssl.SSLCertVerificationError):
            await check_certificate(broker, other.ca)


def test_every_failure_is_told_and_is_the_exit_code(
    crd: Cluster, closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(crd.kubeconfig))
    monkeypatch.setattr("app.selftest.REQUEST_TIMEOUT", 5.0)
    namespace = crd.namespace()
    assert (
        run(namespace=namespace, broker=closed, security="plaintext", webhook=closed, ca=tmp_path / "ca.crt", timeout=0)
        == 1
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["FAILED", "ok", "FAILED", "FAILED"]


async def test_who_waits_for_a_check_is_told_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.selftest.RETRY", 0.0)
    monkeypatch.setattr("app.selftest.SOON", 0.0)
    tries = iter([True, True, False])

    async def check() -> None:
        if next(tries):
            raise CheckError("no leader")

    deadline = asyncio.get_running_loop().time() + 60
    assert not await _eventually("the broker answers", check, deadline)
    assert capsys.readouterr().out.splitlines() == [
        "not yet the broker answers: no leader",
        "ok      the broker answers",
    ]
