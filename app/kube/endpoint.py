"""Where the API server is and how to prove who we are: a service account, or a kubectl context."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config

from app.settings import SettingsError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_LIFETIME = 60.0
"""Seconds after which a token file is read again; kubelet renews it well before it expires."""


class Endpoint(msgspec.Struct, frozen=True):
    """``authorization`` is the header's value, ``server_name`` what the certificate must be for if not the host.

    ``expires`` is in seconds of the monotonic clock; None for what stays good until it is refused.
    """

    server: str
    tls: ssl.SSLContext
    authorization: str = ""
    expires: float | None = None
    server_name: str | None = None
    proxy: str | None = None


Source = Callable[[], Awaitable[Endpoint]]
"""Gives a fresh Endpoint, or raises SettingsError; called again when the last one expires or is refused with 401."""


def in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").exists()


class ServiceAccount:
    """The service account that kubelet mounts into our pod."""

    def __init__(self, directory: Path = SERVICE_ACCOUNT) -> None:
        self._directory = directory
        self._authority = ""
        self._tls: ssl.SSLContext | None = None

    async def __call__(self) -> Endpoint:
        try:
            return await asyncio.to_thread(self._load)
        except (OSError, ValueError) as error:
            raise SettingsError(f"the service account in {self._directory} cannot be used: {error}") from error

    def _load(self) -> Endpoint:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        token = (self._directory / "token").read_text(encoding="ascii").strip()
        authority = (self._directory / "ca.crt").read_text(encoding="ascii")
        if self._tls is None or authority != self._authority:
            # Connections are shared only within one context: a new one each minute would open all of them again.
            self._tls, self._authority = trust(cadata=authority), authority
        return Endpoint(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            tls=self._tls,
            authorization=f"Bearer {token}",
            expires=time.monotonic() + TOKEN_LIFETIME,
        )


def trust(*, cafile: str | None = None, cadata: str | None = None) -> ssl.SSLContext:
    """A context that verifies the server by these authorities, or by the system's when none are given."""
    if cadata is not None and not cadata.strip():
        raise ValueError("the CA certificate is empty")  # ssl would take it for none given
    context = ssl.create_default_context(cafile=cafile, cadata=cadata)
    # Python 3.13 turned this on; clusters' own authorities often lack what it asks for, and no other client asks.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


async def from_kubectl_context(*, kubeconfig: Path | None = None, context: str = "") -> Endpoint:
    """A context of ``kubeconfig``, by default the current one of KUBECONFIG or ~/.kube/config.

    Exec plugins and OIDC are the kubernetes package's work.
    """
    return await _from_kubeconfig(kubeconfig, context, _cluster)


async def with_kubectl_credentials(server: Endpoint, *, kubeconfig: Path | None = None, context: str = "") -> Endpoint:
    """``server`` with the credentials of a kubectl context, which this other server takes too."""

    def prove(configuration: Configuration) -> Endpoint:
        return _with_credentials(server, configuration)

    return await _from_kubeconfig(kubeconfig, context, prove)


async def _from_kubeconfig(
    kubeconfig: Path | None, context: str, make: Callable[[Configuration], Endpoint]
) -> Endpoint:
    configuration = Configuration()
    path = str(kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube/config")
    try:
        await load_kube_config(config_file=path, context=context or None, client_configuration=configuration)
        return await asyncio.to_thread(make, configuration)
    except Exception as error:  # from parsing YAML, running plugins, asking an OIDC issuer …
        which = f"the context {context}" if context else "the current context"
        raise SettingsError(f"{which} of {path} cannot be used: {error}") from error


def _cluster(configuration: Configuration) -> Endpoint:
    tls = trust(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    server = Endpoint(
        server=configuration.host.rstrip("/"),
        tls=tls,
        server_name=configuration.tls_server_name,
        proxy=configuration.proxy,
    )
    return _with_credentials(server, configuration)


def _with_credentials(server: Endpoint, configuration: Configuration) -> Endpoint:
    if configuration.cert_file:
        server.tls.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    authorization = configuration.api_key.get("BearerToken", "").strip()
    if server.server.startswith("https:") and not (authorization or configuration.cert_file):
        raise ValueError("it gives neither a token nor a client certificate")
    return msgspec.structs.replace(server, authorization=authorization)
