"""What an HTTP client showed of itself, and who may read the metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import HTTPException, Request

from app.api.answers import http_status
from app.api.limits import BoundedProtocol
from app.broker.access import Credentials, bearer
from app.broker.rbac import Rbac
from app.broker.refusal import Reason, RefusedError

CERTIFICATE = "client_certificate"
"""Where the ASGI scope's state has the certificate (DER) that TLS has verified."""


class Protocol(BoundedProtocol):
    """uvicorn's, which says of each request which certificate its connection was opened with."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection: Any = transport.get_extra_info("ssl_object")
        # The decoded form is empty for a certificate that was not verified.
        if connection and connection.getpeercert():
            self.app_state = {**self.app_state, CERTIFICATE: connection.getpeercert(binary_form=True)}


def credentials(request: Request) -> Credentials:
    """The header's token, and the connection's certificate."""
    certificate = request.scope.get("state", {}).get(CERTIFICATE, b"")
    return Credentials(token=bearer(request.headers.get("authorization", "")), certificate=certificate)


async def require_metrics_reader(rbac: Rbac, request: Request) -> None:
    """Raise HTTPException unless RBAC allows the client ``get`` on the URL /metrics, as kube-rbac-proxy has it."""
    try:
        caller = await rbac.identify(credentials(request))
        if not await rbac.allows_path(caller, "/metrics"):
            raise RefusedError(Reason.FORBIDDEN, f'user "{caller.username}" may not get /metrics')
    except RefusedError as refused:
        status = http_status(refused)
        challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        raise HTTPException(status, refused.message, headers=challenge) from refused
