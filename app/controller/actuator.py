"""Carries out a plan's creations and deletions, until the API server has given a definite answer to each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from app.core.diagnosis import Cause, Problem
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import NamespacedName
from app.obs import metrics

IN_FLIGHT = 64
"""Creations and deletions under way at once, in the whole process."""
RETRY_FIRST = 0.5
RETRY_MAX = 15.0

log = structlog.get_logger()


class Actuator:
    """Creates and deletes worker pods.

    A name is chosen before the first attempt and a deletion carries the pod's uid, so that an attempt whose answer was
    lost can be repeated without making a second pod or removing a new one.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def create(self, pod: dict[str, Any], *, doubtful: Callable[[ApiError], None]) -> ApiError | None:
        """Create the pod; None once it exists, else what the API server refused it for.

        ``doubtful`` is told of each attempt that ended without a definite answer, before it is repeated.
        """
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        body = msgspec.json.encode(pod)
        error = await self._until_definite(lambda: self._client.create(paths.pods(namespace), body), doubtful)
        if error and not error.already_exists:
            metrics.PODS_CREATED.labels(namespace, "refused").inc()
            return error
        metrics.PODS_CREATED.labels(namespace, "ok").inc()
        log.debug("pod created", namespace=namespace, pod=name)
        return None

    async def delete(self, key: NamespacedName, *, uid: str) -> ApiError | None:
        """Delete that very pod; None once it is gone or going."""
        error = await self._until_definite(lambda: self._client.delete(paths.pod(key), uid=uid))
        if error and not (error.not_found or error.conflict):
            return error
        metrics.PODS_DELETED.labels(key.namespace).inc()
        return None

    async def _until_definite(
        self, attempt: Callable[[], Any], doubtful: Callable[[ApiError], None] | None = None
    ) -> ApiError | None:
        delay = RETRY_FIRST
        while True:
            try:
                async with self._slots:
                    await attempt()
                return None
            except ApiError as error:
                if not is_doubtful(error):
                    return error
                if doubtful:
                    doubtful(error)
                await asyncio.sleep(max(delay, error.retry_after or 0.0))
                delay = min(RETRY_MAX, delay * 2)


def is_doubtful(error: ApiError) -> bool:
    """No answer, or one that says nothing about the object: the request may have been carried out."""
    return error.status in (0, 429) or error.status >= 500


def problem_of(error: ApiError) -> Problem:
    """What a failed creation says about the pool. An exceeded quota can be waited for, a refusal cannot."""
    if is_doubtful(error):
        return Problem(Cause.UNREACHABLE, error.reason or "NoAnswer", error.message)
    quota = error.status == 403 and "exceeded quota" in error.message
    return Problem(Cause.QUOTA if quota else Cause.REFUSED, error.reason or str(error.status), error.message)
