"""Real releases on the fleet stage: install, test, upgrade, uninstall, and what each leaves behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cluster import Fleet
from tests.support.running import CHECKOUT

pytestmark = pytest.mark.e2e

NAMESPACE = "velda"
NAME = "velda-apiserver"
CRD = "agentpools.velda.io"
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
        self.fleet.helm("uninstall", "velda", f"--namespace={NAMESPACE}", "--wait", "--timeout=120s")
        servers = (f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={NAME}")
        self.kubectl("wait", "pods", *servers, "--for=delete", "--timeout=60s")

    def namespace(self) -> str:
        """A fresh one, for this test alone."""
        self._namespaces.append(name := self.fleet.namespace())
        return name

    def clean(self) -> None:
        """Remove whatever there is, in whatever state a failed test has left it."""
        self.fleet.helm("uninstall", "velda", f"--namespace={NAMESPACE}", "--no-hooks", "--ignore-not-found")
        listed = self.kubectl("get", "agentpools", "--all-namespaces", "--output=json", check=False)
        for pool in json.loads(listed.stdout)["items"] if listed.returncode == 0 else ():
            where = (f"--namespace={pool['metadata']['namespace']}", "--type=merge")
            patch = json.dumps({"metadata": {"finalizers": None}})
            self.kubectl("patch", "agentpool", pool["metadata"]["name"], *where, f"--patch={patch}", check=False)
        self.kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=60s")
        if self._namespaces:
            self.kubectl("delete", "namespace", *self._namespaces, "--timeout=60s")

    def helm(self, command: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        where = (f"--namespace={NAMESPACE}", "--wait", "--timeout=120s")
        return self.fleet.helm(command, "velda", *args, *where, check=check)

    def test(self) -> None:
        self.fleet.helm("test", "velda", f"--namespace={NAMESPACE}", "--timeout=90s")

    def apply(self, name: str, namespace: str) -> None:
        self.kubectl("apply", f"--namespace={namespace}", "--filename=-", input=json.dumps(pool(name)))

    def joined(self, name: str, namespace: str) -> None:
        """Wait until the pool's agent has joined."""
        where = ("--for=jsonpath={.status.idleReplicas}=1", "--timeout=60s")
        self.kubectl("wait", f"agentpool/{name}", f"--namespace={namespace}", *where)

    @contextlib.contextmanager
    def admission(self) -> Iterator[None]:
        """Write AgentPools all the time, by dry run; each of them must be let through."""
        namespace, manifest, over = self.namespace(), json.dumps(pool("cpu")), threading.Event()

        def write() -> int:
            count = 0
            while not over.is_set():
                self.kubectl("create", f"-n={namespace}", "--dry-run=server", "--filename=-", input=manifest)
                count += 1
            return count

        with concurrent.futures.ThreadPoolExecutor() as threads:
            written = threads.submit(write)
            try:
                yield
            finally:
                over.set()
            assert written.result() > 0

    def pods(self, label: str = "app.kubernetes.io/component=server") -> list[str]:
        found = self.fleet.get("pods", f"--namespace={NAMESPACE}", f"--selector={label}")["items"]
        return [item["metadata"]["name"] for item in found if "deletionTimestamp" not in item["metadata"]]

    def pod(self) -> str:
        (name,) = self.pods()
        return name

    def remains(self) -> list[str]:
        """Everything in the cluster that mentions us."""
        everywhere = self.kubectl("get", KINDS, "--all-namespaces", "--output=name").stdout.split()
        cluster = self.kubectl("get", CLUSTER_KINDS, "--output=name").stdout.split()
        return [name for name in (*everywhere, *cluster) if "velda" in name]


@pytest.fixture
def release(fleet: Fleet) -> Iterator[Release]:
    """Not installed yet; whatever a test leaves is removed."""
    release = Release(fleet)
    yield release
    release.clean()


def pool(name: str) -> dict[str, Any]:
    container = {"name": "agent", "image": "veldaio/agent:latest"}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    limits = {"maxReplicas": 3, "minIdle": 1, "maxIdle": 1}
    metadata = {"name": name}
    spec = {"autoscaler": limits, "template": template}
    return {"apiVersion": "velda.io/v1", "kind": "AgentPool", "metadata": metadata, "spec": spec}


def test_install_test_and_uninstall_leave_nothing(release: Release) -> None:
    namespace = release.namespace()
    release.install()
    release.apply("cpu", namespace)
    release.joined("cpu", namespace)
    release.test()
    assert release.kubectl("get", "configmap", "velda-config", f"-n={namespace}", "-o=name").stdout
    release.uninstall()
    assert release.remains() == []
    assert not release.kubectl("get", "pods,controllerrevisions", f"-n={namespace}", "-o=name").stdout


def test_upgrade_keeps_what_the_process_filled(release: Release) -> None:
    def secret() -> Any:
        return release.fleet.get("secret", f"{NAME}-tls", f"-n={NAMESPACE}")["data"]

    def bundle() -> Any:
        found = release.fleet.get("validatingwebhookconfiguration", NAME)
        return found["webhooks"][0]["clientConfig"]["caBundle"]

    release.install("--set=replicas=0")
    release.upgrade("--set=replicas=1")
    certificates, pod = secret(), release.pod()
    assert {"ca.crt", "ca.key", "tls.crt", "tls.key"} <= certificates.keys()
    with release.admission():
        release.upgrade("--set=log.level=debug")
    assert release.pod() != pod, "a change of the configuration rolls the Deployment"
    release.kubectl(
        "wait", f"lease/{NAME}", f"-n={NAMESPACE}", f"--for=jsonpath={{.spec.holderIdentity}}={release.pod()}"
    )
    holder = release.fleet.get("lease", NAME, f"-n={NAMESPACE}")["spec"]
    release.upgrade("--set=log.level=debug", "--set=webhook.timeoutSeconds=6")
    lease = release.fleet.get("lease", NAME, f"-n={NAMESPACE}")["spec"]
    assert lease["leaseTransitions"] == holder["leaseTransitions"], "the same leader, without a break"
    assert secret() == certificates
    assert bundle() == certificates["ca.crt"]


def test_pools_can_outlive_the_release(release: Release) -> None:
    namespace = release.namespace()
    release.install("--set=crds.keep=true")
    release.apply("cpu", namespace)
    release.joined("cpu", namespace)
    pods = release.kubectl("get", "pods", f"-n={namespace}", "-o=name").stdout
    release.uninstall()
    assert set(release.remains()) == {"configmap/velda-config", f"customresourcedefinition.apiextensions.k8s.io/{CRD}"}
    assert release.kubectl("get", "pods", f"-n={namespace}", "-o=name").stdout == pods
    left = release.fleet.get("agentpool", "cpu", f"-n={namespace}")
    assert "finalizers" not in left["metadata"]
    release.install()
    release.joined("cpu", namespace)
    release.uninstall()
    assert release.remains() == []


def test_a_crd_that_was_there_before_is_taken_over_only_on_request(release: Release) -> None:
    release.kubectl("apply", f"--filename={CHECKOUT / 'crd' / 'agentpools.velda.io.yaml'}")
    refused = release.install(check=False)
    assert refused.returncode != 0
    assert CRD in refused.stderr
    release.install("--take-ownership")
    release.uninstall()
    assert release.remains() == []


def test_a_crd_of_somebody_else_stays_with_its_pools(release: Release) -> None:
    namespace = release.namespace()
    release.kubectl("apply", f"--filename={CHECKOUT / 'crd' / 'agentpools.velda.io.yaml'}")
    release.install("--set=crds.install=false")
    release.apply("cpu", namespace)
    release.joined("cpu", namespace)
    release.uninstall()
    assert "finalizers" not in release.fleet.get("agentpool", "cpu", f"-n={namespace}")["metadata"]


def test_two_replicas_serve_some_namespaces_and_leave_others_alone(release: Release) -> None:
    served, other = release.namespace(), release.namespace()
    release.install(f"--set=namespaces={{{served}}}", "--set=replicas=2")
    release.apply("cpu", served)
    release.joined("cpu", served)
    release.apply("cpu", other)
    release.test()
    assert "status" not in release.fleet.get("agentpool", "cpu", f"-n={other}")
    assert len(release.pods()) == 2
    assert len(release.pods("velda.io/role=leader")) == 1
    for pod in release.pods():
        assert "forbidden" not in release.fleet.log(pod).lower()
    release.uninstall()
    assert release.remains() == []


@pytest.mark.parametrize("kind", ["validating", "mutating"])
def test_the_emergency_line_works_while_no_replica_answers(release: Release, kind: str) -> None:
    release.install("--set=replicas=0")
    namespace = release.namespace()
    attempt = ("apply", f"--namespace={namespace}", "--filename=-")
    manifest = json.dumps(pool("cpu") if kind == "validating" else labelled())
    refused = release.kubectl(*attempt, input=manifest, check=False)
    assert refused.returncode != 0
    assert "failed calling webhook" in refused.stderr
    release.kubectl("delete", f"{kind}webhookconfiguration", NAME)
    release.kubectl(*attempt, input=manifest)


def labelled() -> dict[str, Any]:
    """A pod of somebody's own that wants the injection."""
    metadata = {"name": "mine", "labels": {"velda.io/pool": "cpu"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "a", "image": "b"}]},
    }
