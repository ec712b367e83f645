"""The HTTPS application: webhooks, REST, health and metrics on one port."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from app.api.auth import require_metrics_reader
from app.api.farewell import Farewell
from app.api.leading import Leading
from app.api.limits import BodyLimit
from app.api.rest import PREFIX, RestApi
from app.broker.rbac import Rbac
from app.obs import metrics
from app.settings import Limits

DEFAULT_LIMITS = Limits()


def create(
    *,
    webhook_router: APIRouter,
    ready: Callable[[], str | None],
    rbac: Rbac | None,
    leading: Leading,
    limits: Limits = DEFAULT_LIMITS,
    agent_router: APIRouter | None = None,
    dashboard: Sequence[BaseRoute] = (),
) -> FastAPI:
    """The application. ``ready`` gives the reason why this replica must not be sent requests, None when it may be.

    ``rbac`` decides who may read the metrics; without it everyone may.
    """
    rest = RestApi(leading)
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.add_middleware(BodyLimit, limits=limits)
    app.add_middleware(Farewell, ready=ready)
    app.include_router(webhook_router)
    if agent_router:
        app.include_router(agent_router)
    app.mount(PREFIX, rest)
    app.router.routes.extend(dashboard)

    @app.exception_handler(HTTPException)
    async def explain(request: Request, error: HTTPException) -> PlainTextResponse:
        return PlainTextResponse(f"{error.detail}\n", status_code=error.status_code, headers=error.headers)

    @app.get("/openapi.json")
    async def openapi() -> JSONResponse:
        return JSONResponse(rest.openapi())

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    async def readyz() -> PlainTextResponse:
        reason = ready()
        return PlainTextResponse(f"{reason}\n", status_code=503) if reason else PlainTextResponse("ok\n")

    @app.get("/metrics")
    async def metrics_text(request: Request) -> PlainTextResponse:
        if rbac:
            await require_metrics_reader(rbac, request)
        return PlainTextResponse(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return app
