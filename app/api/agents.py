"""POST /agents/v1/certificate: an agent's certificate, for the token of its pod."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app.api.answers import http_status
from app.api.auth import credentials
from app.broker.proofs import AgentCertificates
from app.broker.refusal import Reason, RefusedError
from app.broker.reports import reports

REQUEST_LIMIT = 16 * 1024
"""Bytes of a signing request."""


def router(certificates: AgentCertificates) -> APIRouter:
    """The body is a signing request, the answer the certificate, both PEM; a refusal is text, 503 if it may pass."""
    routes = APIRouter()

    @routes.post("/agents/v1/certificate", include_in_schema=False)
    async def certificate(http: Request) -> Response:
        try:
            body = await http.body()
            if len(body) > REQUEST_LIMIT:
                raise RefusedError(Reason.BAD_REQUEST, f"the signing request is longer than {REQUEST_LIMIT} bytes")
            issued = await certificates.issue(token=credentials(http).token, request=body)
        except RefusedError as refused:
            reports.refused(refused, call="agent certificate", peer=http.client.host if http.client else "")
            return PlainTextResponse(f"{refused.message}\n", status_code=http_status(refused))
        return Response(issued, media_type="application/x-pem-file")

    return routes
