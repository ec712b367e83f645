"""A release on the fleet stage as its administrator sees it, and what they apply."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.chart.admissions import admissions
from tests.support.cluster import CRD, Fleet

NAMESPACE = "velda"
NAME = "velda-apiserver"
FINALIZER = "velda.io/agents"
KINDS = (
    "pods,services,deployments,replicasets,jobs,configmaps,secrets,serviceaccounts,leases,roles,rolebindings,"
    "poddisruptionbudgets,controllerrevisions"
)
CLUSTER_KINDS = "clusterroles,clusterrolebindings,validatingwebhookconfigurations,mutatingwebhookconfigurations,crds"


class Release:
    """The release ``velda`` and its administrator."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.kubectl = fleet.kubectl
        self._namespaces: list[str] = []

    def install(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.helm("install", "chart", "--create-namespace", *args, check=check)

    def upgrade(self, *args: str) -> None:
        self.helm("upgrade", "chart", *args)

    def uninstall(self) -> None:
        self.fleet.helm("uninstall", "velda", f"--namespace={NAMESPACE}", "--wait", "--timeout=240s")
        servers = (f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={NAME}")
        self.kubectl("wait", "pods", *servers, "--for=delete", "--timeout=240s")
        self.kubectl("wait", f"lease/{NAME}", f"--namespace={NAMESPACE}", "--for=delete", "--timeout=240s")

    def namespace(self) -> str:
        """A fresh one, for this test alone."""
        self._namespaces.append(name := self.fleet.namespace())
        return name

    def clean(self) -> None:
        """Remove whatever there is, in whatever state a failed test has left it."""
        self.fleet.helm("uninstall", "velda", f"--namespace={NAMESPACE}", "--no-hooks", "--ignore-not-found")
        servers = (f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={NAME}")
        self.kubectl("delete", "pods", *servers, "--force", "--grace-period=0", "--ignore-not-found")
        listed = self.kubectl("get", "agentpools", "--all-namespaces", "--output=json", check=False)
        for pool in json.loads(listed.stdout)["items"] if listed.returncode == 0 else ():
            where = (f"--namespace={pool['metadata']['namespace']}", "--type=merge")
            patch = json.dumps({"metadata": {"finalizers": None}})
            self.kubectl("patch", "agentpool", pool["metadata"]["name"], *where, f"--patch={patch}", check=False)
        self.kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=240s")
        if self._namespaces:
            self.kubectl("delete", "namespace", *self._namespaces, "--timeout=240s")

    def helm(self, command: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        where = (f"--namespace={NAMESPACE}", "--wait", "--timeout=240s")
        return self.fleet.helm(command, "velda", *args, *where, check=check)

    def test(self) -> None:
        self.fleet.helm("test", "velda", f"--namespace={NAMESPACE}", "--timeout=240s")

    def apply(self, name: str, namespace: str) -> None:
        self.kubectl("apply", f"--namespace={namespace}", "--filename=-", input=json.dumps(pool(name)))

    def joined(self, name: str, namespace: str) -> None:
        """Wait until the pool's agent has joined."""
        where = ("--for=jsonpath={.status.idleReplicas}=1", "--timeout=240s")
        self.kubectl("wait", f"agentpool/{name}", f"--namespace={namespace}", *where)

    @contextlib.contextmanager
    def admission(self) -> Iterator[None]:
        """Write AgentPools all the time, by dry run; each of them must be let through."""
        with admissions(self.fleet, namespace=self.namespace(), manifest=pool("cpu")):
            yield

    def pods(self, label: str = "app.kubernetes.io/component=server") -> list[str]:
        found = self.fleet.get("pods", f"--namespace={NAMESPACE}", f"--selector={label}")["items"]
        return [item["metadata"]["name"] for item in found if "deletionTimestamp" not in item["metadata"]]

    def pod(self) -> str:
        (name,) = self.pods()
        return name

    def authorities(self) -> list[str]:
        """The CAs that the API server trusts our webhook by."""
        found = self.fleet.get("validatingwebhookconfiguration", NAME)["webhooks"][0]["clientConfig"]["caBundle"]
        end = "-----END CERTIFICATE-----\n"
        return [f"{one}{end}" for one in base64.b64decode(found).decode().split(end)[:-1]]

    def remains(self) -> list[str]:
        """Everything in the cluster that mentions us."""
        everywhere = self.kubectl("get", KINDS, "--all-namespaces", "--output=name").stdout.split()
        cluster = self.kubectl("get", CLUSTER_KINDS, "--output=name").stdout.split()
        return [name for name in (*everywhere, *cluster) if "velda" in name]


def pool(name: str) -> dict[str, Any]:
    container = {"name": "agent", "image": "veldaio/agent:latest"}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    limits = {"maxReplicas": 3, "minIdle": 1, "maxIdle": 1}
    metadata = {"name": name}
    spec = {"autoscaler": limits, "template": template}
    return {"apiVersion": "velda.io/v1", "kind": "AgentPool", "metadata": metadata, "spec": spec}


def labelled() -> dict[str, Any]:
    """A pod of somebody's own that wants the injection."""
    metadata = {"name": "mine", "labels": {"velda.io/pool": "cpu"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "a", "image": "b"}]},
    }
