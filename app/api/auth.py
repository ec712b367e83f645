"""Who may read the metrics: the cluster's own users, by token and RBAC, as kube-rbac-proxy does it."""

from __future__ import annotations

from fastapi import HTTPException

from app.kube.access import review_path, review_token
from app.kube.client import Client
from app.kube.errors import ApiError


async def require_metrics_reader(client: Client, authorization: str) -> None:
    """Raise HTTPException unless the header has a token whose user RBAC allows ``get`` on the URL /metrics."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthenticated("a bearer token is needed")
    try:
        user = await review_token(client, token.strip())
        if user is None:
            raise _unauthenticated("the token is not valid")
        if not await review_path(client, user=user, verb="get", path="/metrics"):
            raise HTTPException(403, f'user "{user.get("username", "")}" may not get /metrics')
    except ApiError as error:
        raise HTTPException(503, f"the token could not be checked: {error}") from error


def _unauthenticated(message: str) -> HTTPException:
    return HTTPException(401, message, headers={"WWW-Authenticate": "Bearer"})
