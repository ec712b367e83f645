"""A GKE cluster by its name: address and CA from Google's Container API, application default credentials for tokens."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from datetime import UTC, datetime

import aiohttp
import google.auth
import msgspec
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.urllib3 import Request
from urllib3 import PoolManager

from app.kube.endpoint import Endpoint, Source, trust
from app.settings import Gke, SettingsError

CONTAINER_API = "https://container.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TIMEOUT = aiohttp.ClientTimeout(total=30)
RENEW_BEFORE = 300.0
"""Seconds before a token's end at which a new one is asked for."""


class _MasterAuth(msgspec.Struct, rename="camel"):
    cluster_ca_certificate: str


class _Cluster(msgspec.Struct, rename="camel"):
    endpoint: str
    master_auth: _MasterAuth


def source(cluster: Gke) -> Source:
    """Endpoints of the cluster. CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER moves Google's API, as for gcloud."""
    api = os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER", CONTAINER_API).rstrip("/")
    name = f"projects/{cluster.project}/locations/{cluster.location}/clusters/{cluster.cluster_name}"

    async def load() -> Endpoint:
        try:
            token, expires = await asyncio.to_thread(_token)
        except (GoogleAuthError, OSError, ValueError) as error:
            raise SettingsError(f"no application default credentials for {name}: {error}") from error
        found = await _describe(f"{api}/v1/{name}", token)
        try:
            authority = base64.b64decode(found.master_auth.cluster_ca_certificate).decode("ascii")
            tls = trust(cadata=authority)
        except (OSError, ValueError) as error:
            raise SettingsError(f"the CA certificate of {name} cannot be read: {error}") from error
        return Endpoint(server=f"https://{found.endpoint}", tls=tls, authorization=f"Bearer {token}", expires=expires)

    return load


def _token() -> tuple[str, float]:
    """A token, and until when it is good (monotonic seconds)."""
    credentials, _ = google.auth.default(scopes=[SCOPE])
    with PoolManager() as pool:
        credentials.refresh(Request(pool))
    left = 3600.0
    if credentials.expiry:
        left = (credentials.expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    return credentials.token, time.monotonic() + max(0.0, left - RENEW_BEFORE)


async def _describe(url: str, token: str) -> _Cluster:
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session, session.get(url, headers=headers) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise SettingsError(f"{url}: HTTP {answer.status}: {body[:200].decode(errors='replace')}")
            return msgspec.json.decode(body, type=_Cluster)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise SettingsError(f"{url}: {error}") from error
