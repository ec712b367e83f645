"""The dashboard over a cache that a test fills, with a live broker behind it, on a loopback port."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
from fastapi import APIRouter

from app.api.app import create
from app.api.auth import Protocol
from app.api.limits import bounded
from app.broker.access import Access
from app.broker.clients import Clients
from app.controller.cache import PoolCache
from app.dashboard.board import Board
from app.dashboard.routes import routes
from app.model.agentpool import AgentPool
from app.model.meta import NamespacedName
from app.settings import Limits
from tests.api.serving import listening
from tests.broker.wire import Plane, serving

KINDS = ("Ready", "CapacityReady", "Reconciling", "Stalled")
_QUOTA = "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"
_IMAGE = 'Back-off pulling image "veldaio/agent:none": not found'
_ENOUGH = ("True", "IdleEnough", "2 slots of joined agents are idle, minIdle is 2")
_FEW = ("False", "IdleBelowMinimum", "0 slots of joined agents are idle, minIdle is 2")
_SETTLED = ("False", "Settled", "The pool follows its spec")
_WORKING = ("False", "Working", "Nothing stands in the way")
CONDITIONS = {
    "ready": (_ENOUGH, _ENOUGH, _SETTLED, _WORKING),
    "filling": (("Unknown", "Filling", _FEW[2]), _FEW, ("True", "Filling", _FEW[2]), _WORKING),
    "failing": (("False", "Quota", _QUOTA), _FEW, _SETTLED, _WORKING),
    "stalled": (("False", "ImagePullBackOff", _IMAGE), _FEW, _SETTLED, ("True", "ImagePullBackOff", _IMAGE)),
}
"""Ready, CapacityReady, Reconciling and Stalled, each with status, reason and message, as core/status writes them."""


def manifest(key: NamespacedName, *, state: str = "ready", error: str = "", **counts: int) -> dict[str, Any]:
    """An AgentPool as the API server has it; ``counts`` are fields of its status."""
    numbers = {"idleReplicas": 2, "runningReplicas": 1, "slots": 3, "idleSlots": 2, **counts}
    agents = ("idleReplicas", "runningReplicas", "pendingReplicas", "unknownReplicas")
    time = "2026-11-25T12:00:00Z"
    status: dict[str, Any] = {
        "replicas": sum(numbers.get(name, 0) for name in agents),
        **numbers,
        "rollout": {"templateHash": "6c9bd8f7c4"},
        "lastDecision": {
            "rule": "minIdle",
            "reason": "2 idle slots are wanted, 1 is there: 1 more agent",
            "time": time,
        },
        "conditions": [
            {"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": time}
            for kind, (value, reason, message) in zip(KINDS, CONDITIONS[state], strict=True)
        ],
    }
    if error:
        status["lastError"] = {"cause": "quota", "message": error, "time": time}
    return {
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": str(key), "creationTimestamp": time},
        "spec": {"autoscaler": {"minIdle": 2, "maxIdle": 4, "minReplicas": 0, "maxReplicas": 20}},
        "status": status,
    }


class Served:
    """``leading`` may be set to None, as when another replica leads."""

    def __init__(self, plane: Plane, cache: PoolCache, board: Board) -> None:
        self.plane, self.cache, self.board = plane, cache, board
        self.leading: Clients | None = plane.server.clients
        self.url = ""

    def put(self, key: NamespacedName, **fields: Any) -> None:
        """The pool as the watch would show it."""
        new = msgspec.convert(manifest(key, **fields), AgentPool)
        self.cache.pool_changed(self.cache.pool(key), new)

    def delete(self, key: NamespacedName) -> None:
        self.cache.pool_changed(self.cache.pool(key), None)

    def http(self, token: str = "") -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=30)


@asynccontextmanager
async def dashboard(
    *keys: NamespacedName, access: Access | None = None, wall: Callable[[], float] = time.time, **limits: int
) -> AsyncIterator[Served]:
    cache = PoolCache()
    board = Board(cache, wall=wall)
    bounds = Limits().model_copy(update=limits)
    with board.listening():
        async with serving(cache, access=access, changed=board.touched, limits=bounds) as plane:
            served = Served(plane, cache, board)
            for key in keys:
                served.put(key)
            async with _listening(served, bounds) as served.url:
                yield served


@asynccontextmanager
async def _listening(served: Served, limits: Limits) -> AsyncIterator[str]:
    pages = routes(served.board, lambda: served.leading)
    app = create(
        webhook_router=APIRouter(), ready=lambda: None, rbac=None, leading=lambda: served.leading, dashboard=pages
    )
    async with listening(app, http=bounded(Protocol, limits)) as port:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            served.plane.registry.stop()
