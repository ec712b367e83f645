"""Clients by the cluster's own rules: TokenReview or a certificate says who one is, SubjectAccessReview what it may."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from app.broker.access import Caller, Credentials, Right
from app.broker.refusal import Reason, RefusedError
from app.broker.tokens import Tokens, unauthenticated
from app.kube.access import review_access, review_path, review_token
from app.kube.answers import Answers
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import GROUP, PLURAL
from app.settings import Clients

AUDIENCE = "velda-apiserver"
"""A token made for this audience (``kubectl create token --audience``) opens our door and not the API server's."""
AUTHENTICATED = "system:authenticated"
"""The group that the API server adds to everyone whom it knows."""
HOW_TO = "send 'authorization: Bearer TOKEN'; kubectl create token SERVICEACCOUNT makes one"


class _Claims(msgspec.Struct, frozen=True):
    aud: str | list[str] = ""


class Rbac:
    """Answers are kept for seconds, so that a right that was withdrawn, or a token, works for that long."""

    def __init__(
        self,
        client: Client,
        settings: Clients,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``clock`` gives the age of answers in seconds, ``now`` tells which certificates have expired."""
        self._client = client
        self._now = now

        yes, no = settings.cache_seconds, settings.cache_denied_seconds
        self._callers = Tokens[Caller](kept=yes, kept_no=no, clock=clock)
        self._rights = Answers[bool](lambda allowed: yes if allowed else no, clock=clock)

    async def identify(self, credentials: Credentials) -> Caller:
        """By the token where there is one, else by the certificate, which TLS must have verified."""
        if credentials.token:
            return await self._of_token(credentials.token)
        if credentials.certificate:
            return self._of_certificate(credentials.certificate)
        raise unauthenticated(f"credentials of the cluster are needed: {HOW_TO}")

    async def allows(self, caller: Caller, right: Right) -> bool:
        async def ask() -> bool:
            allowed, _ = await review_access(
                self._client,
                user=_user(caller),
                verb=right.verb,
                group=GROUP,
                resource=PLURAL,
                subresource=right.subresource,
                namespace=right.namespace,
                name=right.name,
            )
            return allowed

        return await self._allowed((caller, right), ask, right)

    async def allows_path(self, caller: Caller, path: str) -> bool:
        """Whether the caller may get what is no resource, as /metrics. Raises as ``allows`` does."""
        return await self._allowed(
            (caller, path), lambda: review_path(self._client, user=_user(caller), verb="get", path=path), f"get {path}"
        )

    async def _allowed(self, key: tuple[Caller, object], ask: Callable[[], Any], what: object) -> bool:
        try:
            return await self._rights.get(key, ask)
        except ApiError as error:
            message = f'whether user "{key[0].username}" may {what} could not be checked: {error}'
            raise RefusedError(Reason.NOT_CHECKED, message) from error

    async def _of_token(self, token: str) -> Caller:
        async def ask() -> Caller | None:
            user = await review_token(self._client, token, audiences=_audiences(token))
            return None if user is None else _caller(user)

        caller = await self._callers.get(token, ask)
        if caller is None:
            raise unauthenticated(f"the token is not valid, or no longer: {HOW_TO}")
        return caller

    def _of_certificate(self, der: bytes) -> Caller:
        """Common name and organizations, as the API server reads them. A connection may outlive its certificate."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            names = _texts(certificate, NameOID.COMMON_NAME)
            groups = _texts(certificate, NameOID.ORGANIZATION_NAME)
        except ValueError as error:
            raise unauthenticated("the client certificate cannot be read") from error
        if not names or not names[-1].strip():
            raise unauthenticated("the client certificate has no common name")
        if self._now() > certificate.not_valid_after_utc:
            raise unauthenticated("the client certificate has expired")
        return Caller(username=names[-1], groups=(*groups, AUTHENTICATED))


def _audiences(token: str) -> tuple[str, ...]:
    """Which audience to ask about: ours if the token says that it is for us, else (empty) the API server's.

    The token is not verified here: what it says of itself only chooses the question.
    """
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims)
    except (IndexError, ValueError, RecursionError):
        return ()
    return (AUDIENCE,) if AUDIENCE in ([claims.aud] if isinstance(claims.aud, str) else claims.aud) else ()


def _texts(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> list[str]:
    values = (attribute.value for attribute in certificate.subject.get_attributes_for_oid(oid))
    return [value for value in values if isinstance(value, str)]


def _caller(user: Mapping[str, Any]) -> Caller:
    extra = sorted((user.get("extra") or {}).items())
    return Caller(
        username=user.get("username", ""),
        uid=user.get("uid", ""),
        groups=tuple(user.get("groups") or ()),
        extra=tuple((key, tuple(values)) for key, values in extra),
    )


def _user(caller: Caller) -> Mapping[str, Any]:
    return {
        "username": caller.username,
        "uid": caller.uid,
        "groups": list(caller.groups),
        "extra": {key: list(values) for key, values in caller.extra},
    }
