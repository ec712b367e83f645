"""What a user does with the product: install it, apply pools, look at them, ask for sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import grpc
import yaml

from app.proto import velda_pb2, velda_pb2_grpc
from tests.support.cluster import Isolated
from tests.support.running import CHECKOUT

NAMESPACE = "velda"
EXAMPLES = CHECKOUT / "examples"


class Product:
    """An installed release ``velda``, seen by an administrator of the cluster."""

    def __init__(self, stage: Isolated) -> None:
        self.stage = stage
        self.kubectl = stage.kubectl
        self.namespace = stage.namespace

    def install(self, *args: str) -> None:
        self.stage.helm(
            "install",
            "velda",
            "chart",
            f"--namespace={NAMESPACE}",
            "--create-namespace",
            "--wait",
            "--timeout=90s",
            *args,
        )

    def uninstall(self) -> None:
        self.kubectl("delete", "agentpools", "--all", "--all-namespaces", "--timeout=90s")
        self.stage.helm("uninstall", "velda", f"--namespace={NAMESPACE}", "--wait", "--timeout=90s")

    def restart(self) -> None:
        self.kubectl("rollout", "restart", "deployment/velda-apiserver", f"--namespace={NAMESPACE}")
        self.kubectl("rollout", "status", "deployment/velda-apiserver", f"--namespace={NAMESPACE}", "--timeout=90s")

    @property
    def broker(self) -> str:
        """What gRPC dials."""
        return self.stage.address("velda-apiserver", 50051, namespace=NAMESPACE)

    def apply(self, *manifests: Mapping[str, Any], namespace: str) -> None:
        self.kubectl("apply", f"--namespace={namespace}", "--filename=-", input=yaml.safe_dump_all(manifests))

    def refuse(self, manifest: Mapping[str, Any], *, namespace: str, user: str = "") -> str:
        """Apply what must be refused; what kubectl prints."""
        who = [f"--as={user}"] if user else []
        text = json.dumps(manifest)
        done = self.kubectl("apply", f"--namespace={namespace}", "--filename=-", *who, input=text, check=False)
        assert done.returncode != 0, f"not refused: {done.stdout}"
        return done.stderr

    def wait(self, pool: str, *, namespace: str, timeout: int = 30, **status: int | str) -> None:
        """Until the pool's status has these values."""
        for field, value in status.items():
            self.kubectl(
                "wait",
                f"agentpool/{pool}",
                f"--namespace={namespace}",
                f"--for=jsonpath={{.status.{field}}}={value}",
                f"--timeout={timeout}s",
            )

    def condition(self, pool: str, kind: str, value: str, *, namespace: str, timeout: int = 30) -> None:
        self.kubectl(
            "wait",
            f"agentpool/{pool}",
            f"--namespace={namespace}",
            f"--for=condition={kind}={value}",
            f"--timeout={timeout}s",
        )

    def status(self, pool: str, *, namespace: str) -> dict[str, Any]:
        found: dict[str, Any] = self.stage.get("agentpool", pool, f"--namespace={namespace}")["status"]
        return found

    def pods(self, pool: str, *, namespace: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.stage.get("pods", f"--selector=velda.io/pool={pool}", f"-n={namespace}")[
            "items"
        ]
        return found

    def events(self, pool: str, *, namespace: str) -> list[str]:
        """Reasons of the events on the pool."""
        found = self.stage.get("events", f"--field-selector=involvedObject.name={pool}", f"--namespace={namespace}")
        return [event["reason"] for event in found["items"]]


def pool(name: str, *, template: Mapping[str, Any] | None = None, **autoscaler: int) -> dict[str, Any]:
    """A small AgentPool without any volume; limits as the scaling scenarios have them unless said."""
    limits = {"maxReplicas": 5, "minIdle": 1, "maxIdle": 2} | autoscaler
    container = {
        "name": "agent",
        "image": "veldaio/agent:latest",
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
        "securityContext": {"privileged": True},
    }
    plain = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "velda.io/v1",
        "kind": "AgentPool",
        "metadata": {"name": name},
        "spec": {"autoscaler": limits, "template": template or plain},
    }


class Sessions:
    """A client of the broker."""

    RUNNING = velda_pb2.ExecutionStatus.STATUS_RUNNING

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self.broker = velda_pb2_grpc.BrokerServiceStub(self._channel)
        self._requests: set[asyncio.Task[velda_pb2.ExecutionStatus]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for request in self._requests:
            request.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        await self._channel.close()

    async def run(self, pool: str, *, timeout: float = 30, **fields: Any) -> velda_pb2.ExecutionStatus:
        """Request a session and wait until it runs."""
        request = velda_pb2.SessionRequest(pool=pool, instance_id=1, **fields)
        status: velda_pb2.ExecutionStatus = await self.broker.RequestSession(request, timeout=timeout)
        return status

    def request(self, pool: str, **fields: Any) -> asyncio.Task[velda_pb2.ExecutionStatus]:
        """Request a session in the background."""
        task = asyncio.create_task(self.run(pool, **fields))
        self._requests.add(task)
        return task

    async def list(self) -> Sequence[velda_pb2.Session]:
        answer = await self.broker.ListSessions(velda_pb2.ListSessionsRequest(instance_id=1), timeout=10)
        return list(answer.sessions)

    async def end(self, session: velda_pb2.ExecutionStatus) -> None:
        request = velda_pb2.KillSessionRequest(instance_id=1, session_id=session.session_id)
        await self.broker.KillSession(request, timeout=10)
