"""The CA of the cluster's client certificates, which the API server publishes for servers such as ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.config_map import ConfigMap
from app.model.meta import NamespacedName

SOURCE = NamespacedName("kube-system", "extension-apiserver-authentication")
KEY = "client-ca-file"
INTERVAL = 60.0
"""Seconds between two looks."""

log = structlog.get_logger()


class ClientAuthority:
    """``trust`` gets the CAs (DER, one after the other) at each change: none where no certificate is to be taken."""

    def __init__(self, client: Client, trust: Callable[[bytes], None]) -> None:
        self._client = client
        self._trust = trust
        self._trusted: bytes | None = None

    async def run(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(INTERVAL)

    async def refresh(self) -> None:
        """Look again. What was trusted stays where the API server gives no answer, and goes where it says no."""
        try:
            authority, why = await self._read(), ""
        except ApiError as error:
            if error.status not in (403, 404):
                log.warning("the CA of client certificates could not be read", source=str(SOURCE), error=str(error))
                return
            authority, why = b"", str(error)
        except ValueError as error:
            authority, why = b"", f"{KEY}: {error}"
        if authority == self._trusted:
            return
        self._trust(authority)
        self._trusted = authority
        if authority:
            log.info("client certificates of the cluster are taken", source=str(SOURCE))
        else:
            log.warning("client certificates are not taken, tokens are", source=str(SOURCE), error=why)

    async def _read(self) -> bytes:
        """Raises ApiError, and ValueError for what are no certificates."""
        found = msgspec.json.decode(await self._client.get(paths.config_map(SOURCE)), type=ConfigMap)
        certificates = x509.load_pem_x509_certificates((found.data or {}).get(KEY, "").encode())
        return b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)
