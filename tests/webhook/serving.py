"""Our HTTPS application in a thread of the test process, registered with the API server by URL."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
import yaml

from app.api.app import create
from app.broker.rbac import Rbac
from app.settings import Agents, Clients, Webhook
from app.webhook.routes import Admission, router
from certs.authority import KeyPair, issue_authority, issue_leaf
from tests.support.cluster import Cluster

NAME = "webhook-tests"


@dataclass(frozen=True)
class Served:
    url: str
    authority: Path


@contextlib.contextmanager
def serving(cluster: Cluster, directory: Path) -> Iterator[Served]:
    """The application on a loopback port of its own, with the administrator's client."""
    now = datetime.now(UTC)
    authority = issue_authority(now=now)
    certificate, key = _written(issue_leaf(authority, names=["127.0.0.1"], now=now), directory)
    port = socket.create_server(("127.0.0.1", 0))
    ready = threading.Event()
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        async with cluster.client() as client:
            rbac = Rbac(client, Clients(cache_denied_seconds=0))  # rights change from one request to the next
            admission = Admission(client, agents=Agents(), webhook=Webhook())
            app = create(webhook_router=router(admission), ready=lambda: None, rbac=rbac, leading=lambda: None)
            config = uvicorn.Config(
                app, ssl_certfile=certificate, ssl_keyfile=key, log_config=None, access_log=False, lifespan="off"
            )
            servers.append(uvicorn.Server(config))
            ready.set()
            await servers[0].serve(sockets=[port])

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="webhook")
    thread.start()
    ready.wait(timeout=30)
    path = directory / "ca.pem"
    path.write_bytes(authority.certificate)
    try:
        yield Served(url=f"https://127.0.0.1:{port.getsockname()[1]}", authority=path)
    finally:
        servers[0].should_exit = True
        thread.join()


@contextlib.contextmanager
def registered(cluster: Cluster, served: Served) -> Iterator[None]:
    """The CRD and both webhooks in the cluster; these are gone afterwards."""
    cluster.install_crd()
    configurations = yaml.safe_dump_all(_configurations(served))
    cluster.kubectl("apply", "--filename=-", input=configurations)
    try:
        yield
    finally:
        cluster.kubectl("delete", "--filename=-", input=configurations)


def _configurations(served: Served) -> list[dict[str, Any]]:
    common = {
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 5,
        "matchPolicy": "Equivalent",
    }
    ours = [{"key": "velda.io/pool", "operator": "Exists"}]
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": NAME},
            "webhooks": [
                {
                    **common,
                    "name": "agentpools.velda.io",
                    "clientConfig": _client(served, "validate"),
                    "rules": [_rule("velda.io", "agentpools", ["CREATE", "UPDATE"])],
                }
            ],
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": NAME},
            "webhooks": [
                {
                    **common,
                    "name": "pods.velda.io",
                    "clientConfig": _client(served, "mutate"),
                    "objectSelector": {"matchExpressions": ours},
                    "rules": [_rule("", "pods", ["CREATE"])],
                }
            ],
        },
    ]


def _rule(group: str, resource: str, operations: list[str]) -> dict[str, Any]:
    what = {"apiGroups": [group], "apiVersions": ["*"], "resources": [resource]}
    return {**what, "operations": operations, "scope": "Namespaced"}


def _client(served: Served, path: str) -> dict[str, str]:
    return {"url": f"{served.url}/{path}", "caBundle": base64.b64encode(served.authority.read_bytes()).decode()}


def _written(pair: KeyPair, directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "tls.crt", directory / "tls.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    return certificate, key
