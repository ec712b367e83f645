"""Where the API server is and how to prove who we are: a service account, a kubectl context, or a GKE cluster."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config

from app.settings import SettingsError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_LIFETIME = 60.0
"""Seconds after which a token file is read again; kubelet renews it well before it expires."""


class Endpoint(msgspec.Struct, frozen=True):
    """``expires`` is in seconds of the monotonic clock; None for what stays good until it is refused."""

    server: str
    tls: ssl.SSLContext
    token: str = ""
    expires: float | None = None


Source = Callable[[], Awaitable[Endpoint]]
"""Gives a fresh Endpoint; called again when the last one expires or is refused with 401."""


def in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").exists()


async def from_service_account() -> Endpoint:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return Endpoint(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        tls=ssl.create_default_context(cafile=SERVICE_ACCOUNT / "ca.crt"),
        token=await asyncio.to_thread(_read, SERVICE_ACCOUNT / "token"),
        expires=time.monotonic() + TOKEN_LIFETIME,
    )


async def from_kubectl_context() -> Endpoint:
    """The current context of KUBECONFIG or ~/.kube/config; exec plugins and OIDC are the kubernetes package's."""
    configuration = Configuration()
    try:
        await load_kube_config(client_configuration=configuration)
        token = await configuration.get_api_key_with_prefix("BearerToken") or ""
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    except (ConfigException, OSError) as error:
        raise SettingsError(f"the current kubectl context cannot be used: {error}") from error
    if not configuration.verify_ssl:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return Endpoint(server=configuration.host.rstrip("/"), tls=context, token=token.removeprefix("Bearer ").strip())


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
