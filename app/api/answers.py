"""How the REST API answers: JSON that nobody keeps, and errors in the shape and with the status of grpc-gateway."""

from __future__ import annotations

from typing import Any

import grpc
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.api.limits import peer_of
from app.api.messages import encode
from app.broker.refusal import RefusedError
from app.broker.reports import reports

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
JSON = "application/json"
RETRY_AFTER = "1"
"""Seconds; about as long as another replica takes to lead once this one has stopped."""
LEFT = 499
"""The status for a client that has left; it is written to no one."""

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
"""Source: grpc-gateway, runtime/errors.go; what it does not name here is 500."""
_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_EXTRA = {
    grpc.StatusCode.UNAUTHENTICATED: {"WWW-Authenticate": "Bearer"},
    grpc.StatusCode.UNAVAILABLE: {"Retry-After": RETRY_AFTER},
}


class Answer(Response):
    """A value as JSON."""

    media_type = JSON

    def __init__(self, content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(content, status_code=status, headers={**HEADERS, **(headers or {})})

    def render(self, content: Any) -> bytes:
        return encode(content)


def error_body(code: grpc.StatusCode, message: str) -> dict[str, Any]:
    return {"code": code.value[0], "message": message, "details": []}


def note_refusal(request: Request, refused: RefusedError) -> dict[str, Any]:
    """Count and log it; its body."""
    reports.refused(refused, call=request.scope["route"].name, peer=peer_of(request.scope.get("client")))
    return error_body(grpc.StatusCode[refused.reason.code], refused.message)


def http_status(refused: RefusedError) -> int:
    return _HTTP_STATUS.get(grpc.StatusCode[refused.reason.code], 500)


async def refusal(request: Request, refused: RefusedError) -> Response:
    body = note_refusal(request, refused)
    return Answer(body, status=http_status(refused), headers=_EXTRA.get(grpc.StatusCode[refused.reason.code]))


async def http_error(request: Request, error: HTTPException) -> Response:
    """What the framework refuses: no such route or method, or a body over the limit."""
    code = _CODES.get(error.status_code, grpc.StatusCode.INVALID_ARGUMENT)
    return Answer(error_body(code, error.detail), status=error.status_code, headers=dict(error.headers or {}))


async def internal_error(request: Request, error: Exception) -> Response:
    """The log has the error; the client has no use for it."""
    return Answer(error_body(grpc.StatusCode.INTERNAL, "internal error"), status=500)


async def left(request: Request, error: Exception) -> Response:
    return Response(status_code=LEFT)


HANDLERS: dict[int | type[Exception], Any] = {
    RefusedError: refusal,
    HTTPException: http_error,
    ClientDisconnect: left,
    Exception: internal_error,
}
"""Of an application that answers so, whatever happens."""
