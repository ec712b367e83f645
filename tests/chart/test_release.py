"""Real releases on the fleet stage: install, test, upgrade, uninstall, and what each leaves behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chart.release import NAME, NAMESPACE, Release, labelled, pool
from tests.support.cluster import CRD
from tests.support.running import CHECKOUT

pytestmark = pytest.mark.e2e


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
        release.upgrade("--set=replicas=1", "--set=agents.tokenSeconds=3601")
    assert release.pod() != pod, "a change of the configuration rolls the Deployment"
    release.kubectl(
        "wait", f"lease/{NAME}", f"-n={NAMESPACE}", f"--for=jsonpath={{.spec.holderIdentity}}={release.pod()}"
    )
    holder = release.fleet.get("lease", NAME, f"-n={NAMESPACE}")["spec"]
    release.upgrade("--set=replicas=1", "--set=agents.tokenSeconds=3601", "--set=webhook.timeoutSeconds=6")
    lease = release.fleet.get("lease", NAME, f"-n={NAMESPACE}")["spec"]
    assert lease["leaseTransitions"] == holder["leaseTransitions"], "the same leader, without a break"
    assert secret() == certificates
    assert bundle() == certificates["ca.crt"]


def test_a_new_ca_is_brought_in_by_request_while_webhooks_answer(release: Release) -> None:
    release.install("--set=certificates.overlapSeconds=1")
    (old,) = release.authorities()
    with release.admission():
        release.kubectl("annotate", "secret", f"{NAME}-tls", "velda.io/rotate=ca", f"--namespace={NAMESPACE}")
        seen = [release.authorities()]
        while len(seen[-1]) != 1 or old in seen[-1]:
            seen.append(release.authorities())
    assert max(seen, key=len)[1:] == [old], "both were published together"
    release.test()


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
    release.install(f"--set=namespaces={{{served}}}")
    release.apply("cpu", served)
    release.joined("cpu", served)
    release.apply("cpu", other)
    release.test()
    assert release.fleet.get("agentpool", "cpu", f"-n={other}")["status"] == {"observedGeneration": -1}
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
