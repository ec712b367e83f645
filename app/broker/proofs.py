"""What agents show beside their address: tokens that the API server reviews, and certificates of our CA."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog

from app.broker.refusal import Reason, RefusedError
from app.broker.tokens import Tokens, unauthenticated
from app.core.agents import AgentPod
from certs.agents import certified_uri, issue_agent, pod_uri
from certs.authority import KeyPair

CACHED, CACHED_NO = 10.0, 2.0
"""Seconds that a review's answer is used: an agent that dials again and again asks the API server now and then."""
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
"""What the API server says of a token that is bound to a pod, and only of such a one, in a UserInfo's extra."""

Review = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""The UserInfo of a token that is valid, and for our agents; None for any other. Raises ApiError."""


log = structlog.get_logger()

ACCOUNT = "system:serviceaccount:"


class BoundPod(NamedTuple):
    namespace: str
    name: str
    uid: str


class PodTokens:
    """Tells of which pod a token is."""

    def __init__(self, review: Review, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._review = review
        self._bound = Tokens[BoundPod](kept=CACHED, kept_no=CACHED_NO, clock=clock)

    async def verify(self, token: str, pod: AgentPod) -> None:
        """Raises RefusedError unless the token is bound to that very pod."""
        bound = await self.bound_to(token)
        if bound != BoundPod(pod.pool.namespace, pod.name, pod.uid):
            raise RefusedError(Reason.NOT_A_WORKER, f"the token is not that of {pod}")

    async def bound_to(self, token: str) -> BoundPod:
        """The pod that it was made for, and that lives. Raises RefusedError."""
        bound = await self._bound.get(token, lambda: self._ask(token))
        if bound is None:
            raise unauthenticated("the token is not valid, or no longer, or not one of a pod for this server's agents")
        return bound

    async def _ask(self, token: str) -> BoundPod | None:
        user = await self._review(token) or {}
        account, extra = str(user.get("username", "")), user.get("extra") or {}
        names: Sequence[str] = extra.get(POD_NAME) or []
        uids: Sequence[str] = extra.get(POD_UID) or []
        if not account.startswith(ACCOUNT) or len(names) != 1 or len(uids) != 1:
            return None
        return BoundPod(account.removeprefix(ACCOUNT).partition(":")[0], names[0], uids[0])


class AgentCertificates:
    """Issues certificates to agents, each for the token of its pod. ``authority`` is None where we have no CA."""

    def __init__(self, review: Review, authority: Callable[[], KeyPair | None]) -> None:
        self._tokens = PodTokens(review)
        self._authority = authority

    async def issue(self, *, token: str, request: bytes) -> bytes:
        """The certificate (PEM) for a signing request (PEM). Raises RefusedError."""
        if not token:
            raise unauthenticated("send the pod's token as 'authorization: Bearer TOKEN'")
        pod = await self._tokens.bound_to(token)
        authority = self._authority()
        if authority is None:
            message = (
                "there is no CA of ours to issue certificates by: the Secret with certificates is empty or a user's"
            )
            raise RefusedError(Reason.NOT_CHECKED, message)
        uri = pod_uri(namespace=pod.namespace, name=pod.name, uid=pod.uid)
        try:
            certificate = issue_agent(authority, request=request, uri=uri, now=datetime.now(UTC))
        except ValueError as error:
            raise RefusedError(Reason.BAD_REQUEST, str(error)) from error
        log.info("certificate issued", namespace=pod.namespace, pod=pod.name)
        return certificate


def verify_certificate(certificate: bytes, pod: AgentPod, *, bundle: bytes) -> None:
    """Raises RefusedError unless a CA of ``bundle`` (PEM) has issued the certificate (DER) to that very pod."""
    uri = certified_uri(certificate, bundle=bundle, now=datetime.now(UTC))
    if uri is None:
        raise unauthenticated("the certificate is not one that this server's CA has issued to an agent, or has expired")
    if uri != pod_uri(namespace=pod.pool.namespace, name=pod.name, uid=pod.uid):
        raise RefusedError(Reason.NOT_A_WORKER, f"the certificate is not that of {pod}")


async def review_none(token: str) -> None:
    """Without an API server, no token is valid."""
