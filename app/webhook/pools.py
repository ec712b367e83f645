"""Whether an AgentPool may be written: its own fields, the pod it would make, and whether the user may make pods."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import msgspec

from app.core.podspec import pod_name, render
from app.core.quota import shortfalls
from app.core.validation import shorten, unknown_fields, validate, warnings
from app.kube import paths
from app.kube.access import review_access
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.agentpool import AgentPool, Autoscaler, FieldError, PoolSpec
from app.model.meta import CONFIG_MAP_ANNOTATION
from app.model.quota import ResourceQuota
from app.webhook.rehearsal import BUDGET, Verdict, rehearse
from app.webhook.review import Answer, MalformedError, Request, allow, refuse, refuse_fields

ACCESS_BUDGET = 4.0
"""Seconds; the API server waits 5 s for our whole answer."""
_NO_LIMITS = Autoscaler(max_replicas=0, min_idle=0, max_idle=0)


class _Quotas(msgspec.Struct, frozen=True):
    items: tuple[ResourceQuota, ...] = ()


async def review_pool(client: Client, request: Request, *, config_map: str) -> Answer:
    """The answer to the creation or the update of an AgentPool; raises MalformedError."""
    if not request.writes:
        return allow(request)
    pool = decode_pool(request)
    if pool.metadata.deletion_timestamp or _same_spec(pool, request):
        return allow(request)
    spec = validate(pool.metadata.name, pool.spec)
    errors = [] if isinstance(spec, PoolSpec) else spec
    async with asyncio.TaskGroup() as tasks:
        access = tasks.create_task(_refuse_access(client, request, pool))
        rehearsal = tasks.create_task(_rehearse(client, pool, spec, config_map=config_map))
        quotas = tasks.create_task(_quotas(client, pool.metadata.namespace))
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


def _same_spec(pool: AgentPool, request: Request) -> bool:
    """An update of labels, finalizers and the like is nobody's business here, even if the pool was never good."""
    if request.operation != "UPDATE":
        return False
    try:
        old = msgspec.json.decode(request.old_object, type=AgentPool)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"request.oldObject is no AgentPool: {error}") from error
    return bool(old.spec == pool.spec)


async def _refuse_access(client: Client, request: Request, pool: AgentPool) -> Answer | None:
    """An AgentPool is no way around RBAC: who writes one must be allowed to create pods. In doubt, no."""
    name, namespace = pool.metadata.name, pool.metadata.namespace
    who, user = f'user "{request.user_info.get("username", "")}"', request.user_info
    try:
        async with asyncio.timeout(ACCESS_BUDGET):
            allowed, reason = await review_access(
                client, user=user, verb="create", group="", resource="pods", namespace=namespace
            )
    except (ApiError, TimeoutError) as error:
        why = str(error) or f"no answer within {ACCESS_BUDGET:.0f} s"
        message = f'whether {who} may create pods in namespace "{namespace}" could not be found out, try again: {why}'
        return refuse(request, code=503, reason="ServiceUnavailable", message=message, name=name)
    if allowed:
        return None
    message = f'{who} may not create pods in namespace "{namespace}", which an AgentPool would do for them'
    message += f": {reason}" if reason else ""
    return refuse(request, code=403, reason="Forbidden", message=message, name=name)


async def _rehearse(
    client: Client, pool: AgentPool, spec: PoolSpec | Sequence[FieldError], *, config_map: str
) -> Verdict:
    """Also where only other fields are wrong, so that all mistakes are told at once."""
    if not isinstance(spec, PoolSpec):
        if not all(error.field.startswith("spec.autoscaler") for error in spec):
            return Verdict()
        spec = PoolSpec(autoscaler=_NO_LIMITS, template=pool.spec["template"])
    name = pod_name(pool.metadata.name, secrets.token_hex(4))
    config_map = pool.metadata.annotation(CONFIG_MAP_ANNOTATION) or config_map
    return await rehearse(client, render(pool, spec, name=name, config_map=config_map))


async def _quotas(client: Client, namespace: str) -> Sequence[ResourceQuota]:
    """None when they cannot be read: they are only for a hint."""
    try:
        async with asyncio.timeout(BUDGET):
            body = await client.get(paths.resource_quotas(namespace))
        return msgspec.json.decode(body, type=_Quotas).items
    except (ApiError, TimeoutError):
        return ()


def _quota_warnings(spec: PoolSpec, verdict: Verdict, quotas: Sequence[ResourceQuota]) -> list[str]:
    if verdict.pod is None:
        return []
    return [shorten(text) for text in shortfalls(verdict.pod, quotas, replicas=spec.autoscaler.max_replicas)]
