"""Who may read the metrics: the cluster's own users, by token and RBAC, as kube-rbac-proxy does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import HTTPException

from app.kube.access import review_token
from app.kube.client import Client
from app.kube.errors import ApiError

ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class _Status(msgspec.Struct, frozen=True):
    allowed: bool = False


class _AccessReview(msgspec.Struct, frozen=True):
    status: _Status = _Status()


async def require_metrics_reader(client: Client, authorization: str) -> None:
    """Raise HTTPException unless the header has a token whose user RBAC allows ``get`` on the URL /metrics."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthenticated("a bearer token is needed")
    try:
        user = await review_token(client, token.strip())
        if user is None:
            raise _unauthenticated("the token is not valid")
        if not await _allowed(client, user):
            raise HTTPException(403, f'user "{user.get("username", "")}" may not get /metrics')
    except ApiError as error:
        raise HTTPException(503, f"the token could not be checked: {error}") from error


async def _allowed(client: Client, user: Mapping[str, Any]) -> bool:
    identity = {"user": user.get("username", ""), "groups": user.get("groups") or [], "extra": user.get("extra") or {}}
    spec = {**identity, "uid": user.get("uid", ""), "nonResourceAttributes": {"path": "/metrics", "verb": "get"}}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return msgspec.json.decode(await client.create(ACCESS_REVIEWS, review), type=_AccessReview).status.allowed


def _unauthenticated(message: str) -> HTTPException:
    return HTTPException(401, message, headers={"WWW-Authenticate": "Bearer"})
