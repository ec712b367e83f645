"""Questions to the API server about rights: who is behind a token, and may they do this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.kube.client import Client
from app.kube.paths import ACCESS_REVIEWS, TOKEN_REVIEWS


class _AccessStatus(msgspec.Struct, frozen=True, rename="camel"):
    allowed: bool = False
    reason: str = ""
    evaluation_error: str = ""


class _AccessReview(msgspec.Struct, frozen=True):
    status: _AccessStatus = _AccessStatus()


class _TokenStatus(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: dict[str, Any] | None = None
    audiences: tuple[str, ...] = ()


class _TokenReview(msgspec.Struct, frozen=True):
    status: _TokenStatus = _TokenStatus()


async def review_access(
    client: Client,
    *,
    user: Mapping[str, Any],
    verb: str,
    group: str,
    resource: str,
    namespace: str,
    subresource: str = "",
    name: str = "",
) -> tuple[bool, str]:
    """Whether ``user`` (a UserInfo: username, uid, groups, extra) may do it, and the authorizer's reason.

    Without a namespace it is about all of them, without a name about all objects.
    """
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "namespace": namespace,
        "subresource": subresource,
        "name": name,
    }
    status = await _ask(client, user, {"resourceAttributes": attributes})
    return status.allowed, status.reason or status.evaluation_error


async def review_path(client: Client, *, user: Mapping[str, Any], verb: str, path: str) -> bool:
    """Whether ``user`` may do it with a path that is no resource, as /metrics."""
    return (await _ask(client, user, {"nonResourceAttributes": {"verb": verb, "path": path}})).allowed


async def review_token(client: Client, token: str, audiences: Sequence[str] = ()) -> Mapping[str, Any] | None:
    """The UserInfo of a bearer token; None if it is none that the API server takes, for one of ``audiences``.

    An API server that does not know audiences would take any token: it names none in its answer.
    """
    spec = {"token": token, **({"audiences": list(audiences)} if audiences else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    status = msgspec.json.decode(await client.create(TOKEN_REVIEWS, body), type=_TokenReview).status
    meant = not audiences or not set(audiences).isdisjoint(status.audiences)
    return status.user if status.authenticated and meant else None


async def _ask(client: Client, user: Mapping[str, Any], question: Mapping[str, Any]) -> _AccessStatus:
    who = {
        "user": user.get("username", ""),
        "uid": user.get("uid", ""),
        "groups": user.get("groups") or [],
        "extra": user.get("extra") or {},
    }
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {**who, **question}}
    return msgspec.json.decode(await client.create(ACCESS_REVIEWS, body), type=_AccessReview).status
