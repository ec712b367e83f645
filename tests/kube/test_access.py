"""Rights and tokens, asked of the real API server."""

from __future__ import annotations

from typing import cast

import pytest

from app.kube.access import review_access, review_path, review_token
from app.kube.client import Client
from app.kube.errors import ApiError
from tests.support.cluster import Cluster

NOBODY = {"username": "nobody", "groups": ["system:authenticated"]}
ADMIN = {"username": "somebody", "uid": "7", "groups": ["system:masters"], "extra": {"scopes": ["all"]}}


@pytest.mark.parametrize(("user", "allowed"), [(NOBODY, False), (ADMIN, True)])
async def test_who_may_create_pods(cluster: Cluster, user: dict[str, object], allowed: bool) -> None:
    async with cluster.client() as client:
        answer, _ = await review_access(
            client, user=user, verb="create", group="", resource="pods", namespace="default"
        )
        metrics = await review_path(client, user=user, verb="get", path="/metrics")
    assert answer is allowed
    assert metrics is allowed


async def test_a_right_is_one_verb_in_one_namespace_with_the_reason(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    for command in (
        ("role", "creator", "--verb=create", "--resource=pods"),
        ("rolebinding", "creator", "--role=creator", "--user=nobody"),
    ):
        cluster.kubectl("create", *command, f"--namespace={namespace}")
    async with cluster.client() as client:

        async def may(verb: str, where: str, subresource: str = "") -> tuple[bool, str]:
            return await review_access(
                client, user=NOBODY, verb=verb, group="", resource="pods", namespace=where, subresource=subresource
            )

        allowed, reason = await may("create", namespace)
        denied = [
            await may("delete", namespace),
            await may("create", "default"),
            await may("create", namespace, "exec"),
        ]
    assert allowed
    assert "creator" in reason
    assert [answer for answer, _ in denied] == [False] * 3


async def test_whose_token_it_is(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.kubectl("create", "token", "default", f"--namespace={namespace}").stdout.strip()
    async with cluster.client() as client:
        user = await review_token(client, token)
        assert user is not None
        assert user["username"] == f"system:serviceaccount:{namespace}:default"
        assert await review_token(client, token, audiences=("velda",)) is None
        assert await review_token(client, "no token") is None


class _Unaware:
    """An API server of before there were audiences: it says yes to any token of its own, and names none."""

    async def create(self, path: str, body: object) -> bytes:
        return b'{"status": {"authenticated": true, "user": {"username": "ada"}}}'


async def test_a_yes_for_nobody_in_particular_is_none() -> None:
    client = cast(Client, _Unaware())
    assert await review_token(client, "t", audiences=("velda",)) is None
    assert await review_token(client, "t") == {"username": "ada"}


async def test_a_review_that_fails_is_an_error_not_an_answer(cluster: Cluster) -> None:
    async with cluster.client() as client:
        with pytest.raises(ApiError) as raised:
            await review_access(client, user={}, verb="create", group="", resource="pods", namespace="default")
    assert raised.value.status == 422
