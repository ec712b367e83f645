"""Bearer tokens as the API server knows them, of clients and of agents: bounded, and kept by their digest only."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from app.broker.refusal import Reason, RefusedError
from app.kube.answers import Answers
from app.kube.errors import ApiError

LIMIT = 16 * 1024
"""Characters of a token."""

T = TypeVar("T")


class Tokens(Generic[T]):
    """What a review found out of each: kept for ``kept`` seconds by ``clock``, or ``kept_no`` where that is None."""

    def __init__(self, *, kept: float, kept_no: float, clock: Callable[[], float]) -> None:
        self._answers = Answers[T | None](lambda answer: kept if answer else kept_no, clock=clock)

    async def get(self, token: str, review: Callable[[], Awaitable[T | None]]) -> T | None:
        """Raises RefusedError if the token is none, or ``review`` gets no answer from the API server."""
        if len(token) > LIMIT:
            raise unauthenticated(f"the token is longer than {LIMIT} characters")
        try:
            return await self._answers.get(hashlib.sha256(token.encode(errors="replace")).digest(), review)
        except ApiError as error:
            raise RefusedError(Reason.NOT_CHECKED, f"the token could not be checked: {error}") from error


def unauthenticated(message: str) -> RefusedError:
    return RefusedError(Reason.UNAUTHENTICATED, message)
