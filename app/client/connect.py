"""From the options to a connection: which URL, by which CA, with whose credentials. Tokens go to who is verified."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from app.client.errors import ClientError, Exit
from app.client.forward import SERVICE, forward
from app.client.options import Connection
from app.client.server import Server
from app.core.proofs import CA_KEY
from app.kube import paths
from app.kube.client import Client
from app.kube.endpoint import Endpoint, from_kubectl_context, trust, with_kubectl_credentials
from app.kube.errors import ApiError
from app.model.config_map import ConfigMap
from app.model.meta import NamespacedName
from app.settings import SettingsError

CA_CONFIG_MAP = "velda-apiserver-ca"
SERVED_AS = "velda-apiserver-webhook"
"""The Service whose name, NAME.NAMESPACE.svc, is in the certificate."""
HINT = "give a token: kubectl create token NAME > FILE, and --token-file FILE"


class _Authority(NamedTuple):
    """Whom the server's certificate must be of; ``name`` is what for, if not the URL's host."""

    file: str | None = None
    pem: str | None = None
    name: str | None = None


@contextlib.asynccontextmanager
async def connect(to: Connection) -> AsyncIterator[Server]:
    """The server as the options name it; nothing was sent to it yet. Raises ClientError."""
    async with contextlib.AsyncExitStack() as stack:
        if to.server:
            url, authority = _https(to.server), _Authority(file=str(to.ca) if to.ca else None)
        else:
            authority = await _through_the_cluster(to)
            url = f"https://127.0.0.1:{await stack.enter_async_context(forward(to))}"
        source = functools.partial(_endpoint, to, url, authority)
        client = await stack.enter_async_context(Client(source, await source()))
        yield Server(client, url if to.server else f"Service {to.release_namespace}/{SERVICE}")


def _https(server: str) -> str:
    parts = urlsplit(server)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise ClientError(Exit.USAGE, "--server must be https://HOST[:PORT]")
    return server.rstrip("/")


async def _endpoint(to: Connection, url: str, authority: _Authority) -> Endpoint:
    """With fresh credentials."""
    plain = Endpoint(server=url, tls=_trust(authority), server_name=authority.name)
    if to.token_file:
        return msgspec.structs.replace(plain, authorization=f"Bearer {_token(to.token_file)}")
    try:
        return await with_kubectl_credentials(plain, kubeconfig=to.kubeconfig, context=to.context)
    except SettingsError as error:
        raise ClientError(Exit.DENIED, f"{error}; {HINT}") from error


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(Exit.USAGE, f"--token-file {path}: cannot be read: {error}") from error
    if not token or len(token.split()) > 1:
        raise ClientError(Exit.USAGE, f"--token-file {path}: it must hold one bearer token")
    return token


def _trust(authority: _Authority) -> ssl.SSLContext:
    try:
        return trust(cafile=authority.file, cadata=authority.pem)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ClientError(Exit.USAGE, f"--ca {authority.file or 'as published'}: no CA: {error}") from error


async def _through_the_cluster(to: Connection) -> _Authority:
    """By the CA that --ca names, or else the one that the server publishes."""
    name = f"{SERVED_AS}.{to.release_namespace}.svc"
    return _Authority(file=str(to.ca), name=name) if to.ca else _Authority(pem=await _published(to), name=name)


async def _published(to: Connection) -> str:
    """What the ConfigMap says, which every user of the cluster may read."""
    key = NamespacedName(to.release_namespace, CA_CONFIG_MAP)
    source = functools.partial(from_kubectl_context, kubeconfig=to.kubeconfig, context=to.context)
    try:
        async with Client(source, await source()) as client:
            found = msgspec.json.decode(await client.get(paths.config_map(key)), type=ConfigMap)
    except SettingsError as error:
        raise ClientError(Exit.DENIED, f"{error}; give --server, --ca and --token-file") from error
    except ApiError as error:
        raise _not_published(key, error) from error
    if pem := (found.data or {}).get(CA_KEY, ""):
        return pem
    raise ClientError(Exit.UNAVAILABLE, f"ConfigMap {key} has no {CA_KEY} yet: is the server up? Or give --ca")


def _not_published(key: NamespacedName, error: ApiError) -> ClientError:
    what = f"ConfigMap {key}, where the server publishes its CA: {error}"
    if error.status in (401, 403):
        return ClientError(Exit.DENIED, f"{what}; give --ca")
    if error.not_found:
        return ClientError(Exit.FAILED, f"{what}; give --release-namespace, or --server and --ca")
    return ClientError(Exit.UNAVAILABLE, what, passing=True)
