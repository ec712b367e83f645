"""What an API server sends, and one that answers as it is told."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec

from app.kube.client import Client
from app.kube.errors import ApiError
from app.settings import Agents, Webhook
from app.webhook.review import Answer, Request, decode
from app.webhook.routes import Admission

POOLS = {"group": "velda.io", "version": "v1", "resource": "agentpools"}
PODS = {"group": "", "version": "v1", "resource": "pods"}
USER = {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"scopes": ["a"]}}


def pool(name: str = "cpu", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "velda.io/v1",
        "kind": "AgentPool",
        "metadata": {"name": name, "namespace": "team", "uid": "u-1", **metadata},
        "spec": {
            "autoscaler": {"maxReplicas": 5, "minIdle": 1, "maxIdle": 2},
            "template": {
                "metadata": {"labels": {"app": "velda-agent"}},
                "spec": {
                    "containers": [
                        {
                            "name": "agent",
                            "image": "veldaio/agent:latest",
                            "securityContext": {"privileged": True},
                            "resources": {"limits": {"cpu": "1"}},
                        }
                    ]
                },
            },
        },
    }


def review(
    value: Any, *, old: Any = None, operation: str = "CREATE", resource: dict[str, str] = POOLS, **request: Any
) -> bytes:
    """The body of an AdmissionReview, as the API server sends it."""
    question = {
        "uid": "r-1",
        "kind": {"group": "velda.io", "version": "v1", "kind": "AgentPool"},
        "resource": resource,
        "name": "cpu",
        "namespace": "team",
        "operation": operation,
        "userInfo": USER,
        "object": value,
        "oldObject": old,
        "dryRun": False,
        "options": {"kind": "CreateOptions"},
        **request,
    }
    return msgspec.json.encode({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": question})


def question(value: Any, **request: Any) -> Request:
    return decode(review(value, **request))


class Api:
    """Stands where a Client stands. ``pods``, ``access`` and ``quotas`` are answers, or errors to raise.

    ``meet``: requests wait for each other until that many are under way, which only concurrent ones survive.
    """

    def __init__(self, *, pods: Any = None, access: Any = True, quotas: Any = (), meet: int = 0) -> None:
        self.pods, self.access, self.quotas = pods, access, quotas
        self.created: list[tuple[str, Any, dict[str, str]]] = []
        self.listed = 0
        """How often quotas were asked for."""
        self._meet = asyncio.Barrier(meet) if meet else None

    async def create(self, path: str, body: Any, *, params: dict[str, str] | None = None) -> bytes:
        document = msgspec.to_builtins(body)
        self.created.append((path, document, params or {}))
        if path.endswith("/pods"):
            return await self._answer(self.pods if self.pods is not None else document)
        return await self._answer(
            {"status": {"allowed": self.access}} if isinstance(self.access, bool) else self.access
        )

    async def get(self, path: str, **_: Any) -> bytes:
        self.listed += 1
        return await self._answer(self.quotas if isinstance(self.quotas, ApiError) else {"items": self.quotas})

    async def _answer(self, value: Any) -> bytes:
        if self._meet:
            await self._meet.wait()
        if value is NEVER:
            await asyncio.Event().wait()
        if isinstance(value, list):
            value = value.pop(0)
        if isinstance(value, Exception):
            raise value
        return msgspec.json.encode(value)

    @property
    def rehearsed(self) -> list[tuple[dict[str, Any], dict[str, str]]]:
        return [(body, params) for path, body, params in self.created if path == "/api/v1/namespaces/team/pods"]

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [body["spec"] for path, body, _ in self.created if path.endswith("/subjectaccessreviews")]


NEVER = object()
"""An answer that does not come."""


def admission(api: Api, *, agents: Agents | None = None, **webhook: Any) -> Admission:
    return Admission(cast(Client, api), agents=agents or Agents(), webhook=Webhook(**webhook))


def fields(answer: Answer) -> list[str]:
    return [cause.field for cause in answer.status.details.causes] if answer.status else []
