"""The HTTPS application: webhooks, health and metrics on one port."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from app.api.auth import require_metrics_reader
from app.api.limits import BodyLimit
from app.kube.client import Client
from app.obs.metrics import REGISTRY

BODY_LIMIT = 3 * 1024 * 1024
"""Bytes; what the API server itself takes for an object."""


def create(*, webhook_router: APIRouter, ready: Callable[[], str | None], client: Client) -> FastAPI:
    """The application. ``ready`` gives the reason why this replica must not be sent requests, None when it may be."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(BodyLimit, limit=BODY_LIMIT)
    app.include_router(webhook_router)

    @app.exception_handler(HTTPException)
    async def explain(request: Request, error: HTTPException) -> PlainTextResponse:
        return PlainTextResponse(f"{error.detail}\n", status_code=error.status_code, headers=error.headers)

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    async def readyz() -> PlainTextResponse:
        reason = ready()
        return PlainTextResponse(f"{reason}\n", status_code=503) if reason else PlainTextResponse("ok\n")

    @app.get("/metrics")
    async def metrics(request: Request) -> PlainTextResponse:
        await require_metrics_reader(client, request.headers.get("authorization", ""))
        return PlainTextResponse(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return app
