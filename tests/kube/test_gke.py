"""A GKE cluster by its name, with Google's token and Container APIs on loopback."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.kube import gke
from app.settings import Gke, SettingsError
from certs.authority import issue_authority
from tests.kube.faults import FaultServer, answer

CLUSTER = Gke(project="my-gcp-project", location="us-central1", cluster_name="velda-cluster")
ANOTHER = {"token": {"access_token": "another", "expires_in": 1}}
NOT_FOUND = {"code": 404, "message": "Not found: projects/…"}
NAME = "/v1/projects/my-gcp-project/locations/us-central1/clusters/velda-cluster"


class Google(FaultServer):
    """Hands out tokens for a service account's key, and describes the cluster to whoever has one."""

    def __init__(self) -> None:
        super().__init__(self._google)
        self.token: Any = {"access_token": "ya29.token", "expires_in": 3600, "token_type": "Bearer"}
        authority = base64.b64encode(issue_authority(now=datetime.now(UTC)).certificate).decode()
        self.refusal: Any = {"code": 403, "message": "Required container.clusters.get"}
        self.cluster: Any = {"endpoint": "127.0.0.9", "masterAuth": {"clusterCaCertificate": authority}, "zone": "z"}

    async def _google(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return answer(self.token, status=200 if "access_token" in self.token else 400)
        if request.path == NAME and request.headers["Authorization"] == "Bearer ya29.token":
            return answer(self.cluster)
        return answer({"error": self.refusal}, status=self.refusal["code"])


@pytest.fixture
async def google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Google]:
    async with Google() as server:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        credentials = {
            "type": "service_account",
            "client_email": "velda@my-gcp-project.iam.gserviceaccount.com",
            "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "token_uri": f"{server.url}/token",
        }
        (tmp_path / "credentials.json").write_text(json.dumps(credentials))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER", f"{server.url}/")
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-gcp-project")
        yield server


async def test_the_cluster_is_found_and_the_token_renewed_before_it_ends(google: Google) -> None:
    found = await gke.source(CLUSTER)()
    assert (found.server, found.authorization) == ("https://127.0.0.9", "Bearer ya29.token")
    assert found.expires is not None
    assert found.tls.get_ca_certs()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token": {"error": "invalid_grant"}}, "no application default credentials"),
        (
            ANOTHER,
            "HTTP 403: Required container.clusters.get .project my-gcp-project: .*roles/container.clusterViewer",
        ),
        ({**ANOTHER, "refusal": NOT_FOUND}, "HTTP 404: Not found: .*clusters list --project my-gcp-project"),
        ({**ANOTHER, "refusal": {"code": 500}}, "HTTP 500: {"),
        ({"cluster": {"endpoint": "127.0.0.9"}}, "the CA certificate is empty"),
        ({"cluster": {"status": "PROVISIONING"}}, "no endpoint: its status is PROVISIONING"),
        ({"cluster": b"<html>"}, "JSON is malformed"),
        ({"cluster": {"endpoint": "x", "masterAuth": {"clusterCaCertificate": "###"}}}, "CA certificate"),
    ],
)
async def test_what_is_wrong_is_said_with_the_cluster_s_name(google: Google, change: dict[str, Any], said: str) -> None:
    vars(google).update(change)
    with pytest.raises(SettingsError, match=said) as raised:
        await gke.source(CLUSTER)()
    assert str(raised.value).startswith("provisioners[0].kubernetes.gke: ")
    assert "velda-cluster" in str(raised.value)


async def test_no_credentials_at_all(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file")
    with pytest.raises(SettingsError, match="no application default credentials"):
        await gke.source(CLUSTER)()
