"""A GKE cluster by its name: address and CA from Google's Container API, application default credentials for tokens."""

from __future__ import annotations

import asyncio
import base64
import contextlib
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


FIELD = "provisioners[0].kubernetes.gke"
"""Where velda-config.yaml names the cluster."""


class _MasterAuth(msgspec.Struct, frozen=True, rename="camel"):
    cluster_ca_certificate: str = ""


class _Cluster(msgspec.Struct, frozen=True, rename="camel"):
    """A cluster that is being made has no endpoint yet."""

    endpoint: str = ""
    master_auth: _MasterAuth = _MasterAuth()
    status: str = ""


class _Failure(msgspec.Struct, frozen=True):
    message: str = ""


class _Failed(msgspec.Struct, frozen=True):
    error: _Failure = _Failure()


def source(cluster: Gke) -> Source:
    """Endpoints of the cluster. CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER moves Google's API, as for gcloud."""
    api = os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER", CONTAINER_API).rstrip("/")
    name = f"projects/{cluster.project}/locations/{cluster.location}/clusters/{cluster.cluster_name}"

    async def load() -> Endpoint:
        try:
            token, expires = await asyncio.to_thread(_token)
        except (GoogleAuthError, OSError, ValueError) as error:
            raise SettingsError(f"{FIELD}: no application default credentials for {name}: {error}") from error
        found = await _describe(f"{api}/v1/{name}", token, cluster)
        if not found.endpoint:
            raise SettingsError(f"{FIELD}: {name} has no endpoint: its status is {found.status or 'unknown'}")
        try:
            authority = base64.b64decode(found.master_auth.cluster_ca_certificate).decode("ascii")
            tls = trust(cadata=authority)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{FIELD}: the CA certificate of {name} cannot be read: {error}") from error
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


async def _describe(url: str, token: str, cluster: Gke) -> _Cluster:
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session, session.get(url, headers=headers) as answer:
            body = await answer.read()
            if answer.status != 200:
                said = f"HTTP {answer.status}: {_reason(body)}"
                raise SettingsError(f"{FIELD}: {url}: {said}{_advice(answer.status, cluster)}")
            return msgspec.json.decode(body, type=_Cluster)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise SettingsError(f"{FIELD}: {url}: {str(error) or 'no answer in time'}") from error


def _reason(body: bytes) -> str:
    """Google's own words, or the beginning of what another sent."""
    with contextlib.suppress(msgspec.MsgspecError):
        if message := msgspec.json.decode(body, type=_Failed).error.message:
            return message
    return body[:200].decode(errors="replace")


def _advice(status: int, cluster: Gke) -> str:
    """What to do about a refusal, to stand after Google's words."""
    if status == 403:
        right = "container.clusters.get, which roles/container.clusterViewer has"
        return f" (project {cluster.project}: these credentials need {right}; is it the right project?)"
    if status == 404:
        listing = f"gcloud container clusters list --project {cluster.project}"
        return f" (check location and cluster_name: {listing})"
    return ""
