"""POST /validate and POST /mutate: bytes in, bytes out, counted and timed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from opentelemetry.trace import SpanKind

from app.kube.client import Client
from app.model.meta import GROUP, PLURAL
from app.obs import metrics, spans
from app.settings import Agents, Webhook
from app.webhook import review
from app.webhook.inquiries import Inquiries
from app.webhook.mutation import mutate
from app.webhook.pools import review_pool

log = structlog.get_logger()


class Admission:
    """Answers admission reviews, any number at once; from one to the next only what ``Inquiries`` keep."""

    def __init__(self, client: Client, *, agents: Agents, webhook: Webhook) -> None:
        self._inquiries = Inquiries(client)
        self._agents = agents
        self._webhook = webhook

    async def validate(self, request: review.Request) -> review.Answer:
        """Whether an AgentPool may be written; all else may."""
        if (request.resource.group, request.resource.resource) != (GROUP, PLURAL):
            return review.allow(request)
        return await review_pool(self._inquiries, request, config_map=self._agents.config_map, proof=self._agents.proof)

    async def mutate(self, request: review.Request) -> review.Answer:
        """What to inject into a pod, or into an AgentPool where the settings say so."""
        return mutate(
            request,
            config_map=self._agents.config_map,
            proof=self._agents.proof,
            agentpools=self._webhook.mutate_agentpools,
        )


def router(admission: Admission) -> APIRouter:
    """The two routes; a body that is no AdmissionReview gets 400 and the reason as text."""
    routes = APIRouter()

    async def validate(http: Request) -> Response:
        return await _serve(http, "validate", admission.validate)

    async def mutate(http: Request) -> Response:
        return await _serve(http, "mutate", admission.mutate)

    # Starlette's own routes: FastAPI's cost each review 30 to 65 µs more, of some 370.
    routes.add_route("/validate", validate, methods=["POST"])
    routes.add_route("/mutate", mutate, methods=["POST"])
    return routes


async def _serve(http: Request, webhook: str, decide: Callable[[review.Request], Awaitable[review.Answer]]) -> Response:
    body = await http.body()
    start, operation = time.perf_counter(), "unknown"
    try:
        request = review.decode(body)
        operation = request.operation
        about = {"velda.object": f"{request.namespace}/{request.name}", "velda.operation": operation}
        with spans.span(f"admission {webhook}", about, kind=SpanKind.SERVER, root=True) as span:
            answer = await decide(request)
            span.set_attribute("velda.code", answer.code)
    except (review.MalformedError, RecursionError) as error:  # what can just be decoded may be too deep to compare
        metrics.ADMISSIONS.labels(webhook, operation, "400").inc()
        log.warning("malformed admission request", webhook=webhook, error=str(error))
        return PlainTextResponse(f"{error}\n", status_code=400)
    metrics.ADMISSIONS.labels(webhook, operation, str(answer.code)).inc()
    metrics.ADMISSION_SECONDS.labels(webhook).observe(time.perf_counter() - start)
    if answer.status:
        log.info("refused", webhook=webhook, pool=f"{request.namespace}/{request.name}", error=answer.status.message)
    return Response(review.encode(answer), media_type="application/json")
