"""Whether an AgentPool may be written: its own fields, the pod it would make, and whether the user may make pods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from app.core.podspec import template_hash
from app.core.proofs import Proof
from app.core.quota import shortfalls
from app.core.validation import shorten, unknown_fields, validate, warnings
from app.kube.errors import ApiError
from app.model.agentpool import AgentPool, Autoscaler, FieldError, PoolSpec
from app.model.meta import CONFIG_MAP_ANNOTATION
from app.model.quota import ResourceQuota
from app.obs import metrics
from app.webhook.inquiries import Inquiries
from app.webhook.rehearsal import Verdict
from app.webhook.review import Answer, MalformedError, Request, allow, refuse, refuse_fields

_NO_LIMITS = Autoscaler(max_replicas=0, min_idle=0, max_idle=0)


async def review_pool(inquiries: Inquiries, request: Request, *, config_map: str, proof: Proof | None = None) -> Answer:
    """The answer to the creation or the update of an AgentPool; raises MalformedError."""
    if not request.writes:
        return allow(request)
    pool, old = decode_pool(request), _old_spec(request)
    if pool.metadata.deletion_timestamp or (request.operation == "UPDATE" and old == pool.spec):
        return allow(request)
    spec = validate(pool.metadata.name, pool.spec)
    errors = [] if isinstance(spec, PoolSpec) else spec
    asked = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        access = tasks.create_task(_refuse_access(inquiries, request, pool))
        rehearsal = tasks.create_task(_rehearse(inquiries, pool, spec, old, config_map=config_map, proof=proof))
        quotas = tasks.create_task(inquiries.quotas(pool.metadata.namespace))
    metrics.ADMISSION_WAIT_SECONDS.observe(time.perf_counter() - asked)
    if refusal := access.result():
        return refusal
    verdict = rehearsal.result()
    hints = [shorten(str(error)) for error in unknown_fields(pool.spec)]
    if isinstance(spec, PoolSpec):
        hints += [*warnings(spec), *_quota_warnings(spec, verdict, quotas.result())]
    hints += verdict.warnings
    if errors := [*errors, *verdict.errors]:
        return refuse_fields(request, errors, name=pool.metadata.name, warnings=hints)
    return allow(request, warnings=hints)


def decode_pool(request: Request) -> AgentPool:
    """The AgentPool that is to be written, with the namespace it is written to; raises MalformedError."""
    try:
        pool = msgspec.json.decode(request.object, type=AgentPool)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"request.object is no AgentPool: {error}") from error
    namespace = pool.metadata.namespace or request.namespace
    return msgspec.structs.replace(pool, metadata=msgspec.structs.replace(pool.metadata, namespace=namespace))


def _old_spec(request: Request) -> Any:
    """None for a creation. An update that leaves it as it was (labels, finalizers) is nobody's business here, even if
    the pool was never good.
    """
    if request.operation != "UPDATE":
        return None
    try:
        return msgspec.json.decode(request.old_object, type=AgentPool).spec
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"request.oldObject is no AgentPool: {error}") from error


async def _refuse_access(inquiries: Inquiries, request: Request, pool: AgentPool) -> Answer | None:
    """An AgentPool is no way around RBAC: who writes one must be allowed to create pods. In doubt, no."""
    name, namespace = pool.metadata.name, pool.metadata.namespace
    who, user = f'user "{request.user_info.get("username", "")}"', request.user_info
    try:
        allowed, reason = await inquiries.may_create_pods(user, namespace)
    except (ApiError, TimeoutError) as error:
        why = str(error) or "no answer in time"
        message = f'whether {who} may create pods in namespace "{namespace}" could not be found out, try again: {why}'
        return refuse(request, code=503, reason="ServiceUnavailable", message=message, name=name)
    if allowed:
        return None
    message = f'{who} may not create pods in namespace "{namespace}", which an AgentPool would do for them'
    message += f": {reason}" if reason else ""
    return refuse(request, code=403, reason="Forbidden", message=message, name=name)


async def _rehearse(
    inquiries: Inquiries,
    pool: AgentPool,
    spec: PoolSpec | Sequence[FieldError],
    old: Any,
    *,
    config_map: str,
    proof: Proof | None,
) -> Verdict:
    """Also where only other fields are wrong, so that all mistakes are told at once. What is wrong with a template that
    stays as it was (a policy has come since) is a warning: it must not keep anybody from changing the numbers.
    """
    if not isinstance(spec, PoolSpec):
        if not all(error.field.startswith("spec.autoscaler") for error in spec):
            return Verdict()
        template = pool.spec["template"]
        spec = PoolSpec(autoscaler=_NO_LIMITS, template=template, template_hash=template_hash(template))
    config_map = pool.metadata.annotation(CONFIG_MAP_ANNOTATION) or config_map
    verdict = await inquiries.rehearse(pool, spec, config_map=config_map, proof=proof)
    if isinstance(old, dict) and old.get("template") == spec.template:
        told = (shorten(str(error)) for error in verdict.errors)
        return verdict._replace(errors=(), warnings=(*verdict.warnings, *told))
    return verdict


def _quota_warnings(spec: PoolSpec, verdict: Verdict, quotas: Sequence[ResourceQuota]) -> list[str]:
    if verdict.pod is None:
        return []
    return [shorten(text) for text in shortfalls(verdict.pod, quotas, replicas=spec.autoscaler.max_replicas)]
