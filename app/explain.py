"""``velda-apiserver explain POOL``: why the pool has the size that it has, by the current kubectl context."""

from __future__ import annotations

import asyncio

import msgspec

from app.core.explain import explain
from app.kube import paths
from app.kube.config import connect
from app.kube.errors import ApiError
from app.model.agentpool import AgentPool
from app.model.meta import NamespacedName
from app.obs.progress import SOON, waiting
from app.settings import Kubernetes


class ExplainError(Exception):
    """The pool cannot be read; the text says why."""


def run(*, pool: str, namespace: str) -> str:
    """The explanation of ``pool`` (or ``NAMESPACE/POOL``)."""
    space, slash, name = pool.rpartition("/")
    with waiting("waiting for the API server", after=SOON):
        return asyncio.run(_run(NamespacedName(space if slash else namespace, name)))


async def _run(key: NamespacedName) -> str:
    async with await connect(Kubernetes(namespace=key.namespace)) as client:
        try:
            body = await client.get(paths.agentpool(key))
        except ApiError as error:
            raise ExplainError(f"AgentPool {key}: {error.message}") from error
    return explain(msgspec.json.decode(body, type=AgentPool))
