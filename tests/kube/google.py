"""Google on loopback, for a process of ours: a metadata server that hands out tokens, and the Container API by TLS."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from certs.authority import issue_authority, issue_leaf
from tests.kube.faults import answer

CLUSTER = "/v1/projects/my-gcp-project/locations/us-central1/clusters/velda-cluster"
LASTING = 302
"""Seconds that a token is good for: two, and the five minutes before its end in which it is renewed."""


class Google:
    """``tokens`` are handed out in turn, the last for ever; whoever shows one of them is told of the cluster."""

    def __init__(self, directory: Path, *, tokens: list[str], endpoint: str, authority: str) -> None:
        self._tokens = tokens
        self._cluster = {"endpoint": endpoint, "masterAuth": {"clusterCaCertificate": authority}}
        self._directory = directory
        self._metadata = TestServer(self._application(self._instance), skip_url_asserts=True)
        self._api = TestServer(self._application(self._container), scheme="https", skip_url_asserts=True)
        self.shown: set[str] = set()
        """Tokens that the Container API was shown."""
        self.renewed = asyncio.Event()
        """It was shown another than the first."""

    async def __aenter__(self) -> Self:
        await self._metadata.start_server()
        await self._api.start_server(ssl=self._tls())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._metadata.close()
        await self._api.close()

    @property
    def environment(self) -> dict[str, str]:
        """Of a process on a machine of Google's."""
        metadata = f"127.0.0.1:{self._metadata.port}"
        return {
            "GCE_METADATA_HOST": metadata,
            "GCE_METADATA_IP": metadata,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER": f"https://127.0.0.1:{self._api.port}",
            "SSL_CERT_FILE": str(self._directory / "google.pem"),
        }

    def _application(self, handler: Any) -> web.Application:
        application = web.Application()
        application.router.add_get("/{path:.*}", handler)
        return application

    async def _instance(self, request: web.Request) -> web.Response:
        flavour = {"Metadata-Flavor": "Google"}
        if request.path.endswith("/token"):
            token = self._tokens.pop(0) if len(self._tokens) > 1 else self._tokens[0]
            document = {"access_token": token, "expires_in": LASTING, "token_type": "Bearer"}
            return answer(document, headers=flavour)
        if "service-accounts" in request.path:
            return answer({"email": "velda@my-gcp-project.iam.gserviceaccount.com"}, headers=flavour)
        if request.path.endswith("project-id"):
            return web.Response(text="my-gcp-project", headers=flavour)
        return web.Response(status=200 if request.path == "/" else 404, headers=flavour)

    async def _container(self, request: web.Request) -> web.Response:
        if request.path != CLUSTER:
            error = {"code": 403, "message": f"Permission denied on resource {request.path}."}
            return answer({"error": error}, status=403)
        self.shown.add(request.headers["Authorization"].removeprefix("Bearer "))
        if len(self.shown) > 1:
            self.renewed.set()
        return answer(self._cluster)

    def _tls(self) -> ssl.SSLContext:
        now = datetime.now(UTC)
        authority = issue_authority(now=now)
        leaf = issue_leaf(authority, names=("127.0.0.1",), now=now)
        (self._directory / "google.pem").write_bytes(authority.certificate)
        (self._directory / "leaf.pem").write_bytes(leaf.certificate + leaf.key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._directory / "leaf.pem")
        return context
