"""The port for clients with certificates: the cluster's own CA, a real Go client; and the port that asks for none."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from structlog.testing import capture_logs

from app.api.app import create
from app.api.auth import Protocol
from app.broker.rbac import Rbac
from app.settings import Clients
from certs.authority import issue_authority, issue_leaf
from certs.clients import ClientAuthority
from certs.serving import Serving
from tests.kube.faults import FaultServer, answer, failure
from tests.support.cluster import Cluster
from tests.support.pki import Pki

Pair = tuple[Path, Path]


@dataclass(frozen=True)
class Ports:
    """URLs of both, and what verifies them."""

    plain: str
    clients: str
    authority: Path

    @contextlib.asynccontextmanager
    async def client(self, certificate: Pair | None = None) -> AsyncIterator[httpx.AsyncClient]:
        trust = ssl.create_default_context(cafile=self.authority)
        if certificate:
            trust.load_cert_chain(*certificate)
        async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
            yield client


@contextlib.asynccontextmanager
async def listening(app: FastAPI, context: ssl.SSLContext) -> AsyncIterator[str]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http=Protocol, lifespan="off", log_config=None)
    config.load()
    config.ssl = context
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield f"https://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        await server.shutdown()


@pytest.fixture
async def ports(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Ports]:
    serving, now = Serving(), datetime.now(UTC)
    authority = issue_authority(now=now)
    (path := tmp_path / "ca.crt").write_bytes(authority.certificate)
    async with cluster.client() as client:
        await ClientAuthority(client, serving.trust_clients).refresh()
        # The pair may come after the CA, and changes while the CA stays.
        serving.swap(issue_leaf(authority, names=["127.0.0.1"], now=now))
        app = create(webhook_router=APIRouter(), ready=lambda: None, rbac=Rbac(client, Clients()), leading=lambda: None)
        async with listening(app, serving.context) as plain, listening(app, serving.client_context) as clients:
            yield Ports(plain, clients, path)


def issued(cluster: Cluster, name: str) -> Pair:
    """One that the stage's CA has made."""
    directory = cluster.directory / "pki"
    return directory / f"{name}.crt", directory / f"{name}.key"


async def test_who_shows_a_certificate_of_the_cluster_is_its_user(cluster: Cluster, ports: Ports) -> None:
    async with ports.client(issued(cluster, "front-proxy")) as client:
        answer = await client.get(f"{ports.clients}/metrics")
        assert (answer.status_code, answer.text) == (403, 'user "front-proxy" may not get /metrics\n')
    async with ports.client(issued(cluster, "admin")) as client:
        assert (await client.get(f"{ports.clients}/metrics")).status_code == 200
        bad = {"Authorization": "Bearer garbage"}
        assert (await client.get(f"{ports.clients}/metrics", headers=bad)).status_code == 401


async def test_a_certificate_is_no_duty(ports: Ports) -> None:
    async with ports.client() as client:
        assert (await client.get(f"{ports.clients}/healthz")).status_code == 200
        assert (await client.get(f"{ports.clients}/metrics")).status_code == 401


async def test_a_certificate_of_another_ca_is_turned_away(ports: Ports, tmp_path: Path) -> None:
    foreign = Pki(tmp_path / "foreign").issue_client("eve", user="admin", group="system:masters")
    async with ports.client(foreign) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"{ports.clients}/healthz")


async def test_a_servers_certificate_is_no_clients(cluster: Cluster, ports: Ports) -> None:
    async with ports.client(issued(cluster, "kube-apiserver")) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"{ports.clients}/healthz")


async def test_the_webhooks_port_takes_every_caller_and_believes_no_certificate(
    cluster: Cluster, ports: Ports, tmp_path: Path
) -> None:
    foreign = Pki(tmp_path / "foreign").issue_client("eve", user="eve")
    for pair in (foreign, issued(cluster, "admin")):
        async with ports.client(pair) as client:
            assert (await client.get(f"{ports.plain}/healthz")).status_code == 200
            assert (await client.get(f"{ports.plain}/metrics")).status_code == 401


async def test_kubectl_gets_in_with_the_certificate_of_its_kubeconfig(cluster: Cluster, ports: Ports) -> None:
    for url, known in ((ports.clients, True), (ports.plain, False)):
        where = (f"--server={url}", f"--certificate-authority={ports.authority}")
        done = await asyncio.to_thread(cluster.kubectl, "get", "--raw=/metrics", *where, check=False)
        assert ("velda_leader" in done.stdout) is known, done.stderr


async def test_whose_certificates_are_taken_follows_the_cluster(cluster: Cluster) -> None:
    told: list[bytes] = []
    pem = cluster.get("configmap", "extension-apiserver-authentication", "--namespace=kube-system")["data"]
    results = [
        answer({"data": pem}),
        failure(500),
        answer({"data": pem}),
        failure(403, "Forbidden", "may not read it"),
        answer({"data": {"client-ca-file": "garbage"}}),
        answer({"data": pem}),
    ]

    async def handler(_: object) -> object:
        return results.pop(0)

    async with FaultServer(handler) as server, server.client() as client:  # type: ignore[arg-type]
        authority = ClientAuthority(client, told.append)
        with capture_logs() as lines:
            while results:
                await authority.refresh()
    known = told[0]
    assert told == [known, b"", known]
    assert known
    assert [line["log_level"] for line in lines] == ["info", "warning", "warning", "info"]
    assert "may not read it" in lines[2]["error"]
