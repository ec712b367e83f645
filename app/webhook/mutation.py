"""What is put into pods that carry our label, and into AgentPools where a cluster wants it there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonpatch
import msgspec

from app.core.fields import is_deeper
from app.core.injection import inject
from app.core.podshape import check_pod
from app.core.proofs import Proof
from app.core.validation import DEEPEST, validate
from app.model.agentpool import PoolSpec
from app.model.meta import CONFIG_MAP_ANNOTATION, GROUP, PLURAL, POOL_LABEL
from app.webhook.pools import decode_pool
from app.webhook.review import Answer, MalformedError, Request, allow, patch


def mutate(request: Request, *, config_map: str, proof: Proof | None, agentpools: bool) -> Answer:
    """The answer to a creation; raises MalformedError.

    What is not well formed is let through as it is: whoever judges it says so better.
    """
    resource = (request.resource.group, request.resource.resource)
    if resource == ("", "pods") and request.operation == "CREATE" and not request.sub_resource:
        return patch(request, _pod_patch(request, config_map, proof))
    if resource == (GROUP, PLURAL) and request.writes and agentpools:
        return patch(request, _pool_patch(request, config_map, proof))
    return allow(request)


def _pod_patch(request: Request, config_map: str, proof: Proof | None) -> list[Mapping[str, Any]]:
    try:
        pod = msgspec.json.decode(request.object)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"request.object is no Pod: {error}") from error
    if not isinstance(pod, dict):
        raise MalformedError("request.object is no Pod")
    if is_deeper(pod, DEEPEST) or any(check_pod(pod, "")):
        return []
    pool = ((pod.get("metadata") or {}).get("labels") or {}).get(POOL_LABEL, "")
    if not pool:
        return []
    injected = inject(pod, pool=pool, config_map=config_map, proof=proof)
    return _difference({"spec": pod["spec"]}, {"spec": injected["spec"]})


def _pool_patch(request: Request, config_map: str, proof: Proof | None) -> list[Mapping[str, Any]]:
    pool = decode_pool(request)
    spec = validate(pool.metadata.name, pool.spec)
    if not isinstance(spec, PoolSpec):
        return []
    config_map = pool.metadata.annotation(CONFIG_MAP_ANNOTATION) or config_map
    injected = inject(spec.template, pool=pool.metadata.name, config_map=config_map, proof=proof)
    return _difference({"spec": {"template": spec.template}}, {"spec": {"template": injected}})


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(jsonpatch.make_patch(old, new).patch)
