"""What a user does with the product: install it, apply pools, look at them, ask for sessions."""

from __future__ import annotations

import asyncio
import json
import time
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
            "--timeout=240s",
            *args,
        )
        self._answers()

    def _answers(self) -> None:
        """A node learns of a Service's endpoints a moment after helm has seen the pods Ready."""
        deadline = time.monotonic() + 20
        dry_run = ("apply", "--dry-run=server", "--filename", str(EXAMPLES / "shell.yaml"))
        while self.kubectl(*dry_run, check=False).returncode:
            assert time.monotonic() < deadline, self.kubectl(*dry_run)
            time.sleep(0.2)

    def uninstall(self) -> None:
        self.kubectl("delete", "agentpools", "--all", "--all-namespaces", "--timeout=240s")
        self.stage.helm("uninstall", "velda", f"--namespace={NAMESPACE}", "--wait", "--timeout=240s")

    def restart(self) -> None:
        self.kubectl("rollout", "restart", "deployment/velda-apiserver", f"--namespace={NAMESPACE}")
        self.kubectl("rollout", "status", "deployment/velda-apiserver", f"--namespace={NAMESPACE}", "--timeout=240s")

    @property
    def broker(self) -> str:
        """What gRPC dials."""
        return self.stage.address("velda-apiserver", 50051, namespace=NAMESPACE)

    def user(self, name: str, *, namespace: str = "") -> str:
        """A bearer token of a new service account that may use sessions in a namespace, or in all of them."""
        where, binding = namespace or NAMESPACE, "rolebinding" if namespace else "clusterrolebinding"
        role = ("--clusterrole=velda-session-user", f"--serviceaccount={where}:{name}")
        self.kubectl("create", "serviceaccount", name, f"--namespace={where}")
        self.kubectl("create", binding, name, *role, f"--namespace={where}")
        return self.kubectl("create", "token", name, f"--namespace={where}").stdout.strip()

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
    """A client of the broker, with a bearer token where the broker wants one."""

    RUNNING = velda_pb2.ExecutionStatus.STATUS_RUNNING

    def __init__(self, target: str, *, token: str = "") -> None:
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
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
        status: velda_pb2.ExecutionStatus = await self.broker.RequestSession(
            request, timeout=timeout, metadata=self._metadata
        )
        return status

    def request(self, pool: str, **fields: Any) -> asyncio.Task[velda_pb2.ExecutionStatus]:
        """Request a session in the background."""
        task = asyncio.create_task(self.run(pool, **fields))
        self._requests.add(task)
        return task

    async def trouble(self, pool: str, *, timeout: float = 30) -> str:
        """The first reason that the pool's watch gives for getting no agent."""
        request = velda_pb2.WatchPoolStatusRequest(pool=pool)
        pools = velda_pb2_grpc.PoolManagerServiceStub(self._channel)
        async for told in pools.WatchPoolStatus(request, timeout=timeout, metadata=self._metadata):
            if error := told.autoscaler_status.last_allocation_error:
                return str(error)
        raise AssertionError("the watch ended")

    async def list(self) -> Sequence[velda_pb2.Session]:
        request = velda_pb2.ListSessionsRequest(instance_id=1)
        answer = await self.broker.ListSessions(request, timeout=10, metadata=self._metadata)
        return list(answer.sessions)

    async def end(self, session: velda_pb2.ExecutionStatus) -> None:
        request = velda_pb2.KillSessionRequest(instance_id=1, session_id=session.session_id)
        await self.broker.KillSession(request, timeout=10, metadata=self._metadata)
