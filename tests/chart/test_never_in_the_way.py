"""What is not ours goes on whatever becomes of us: all replicas stopped, helm uninstall, the namespace deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.chart.release import NAME, NAMESPACE, Release, labelled, pool
from tests.support.cluster import CRD
from tests.support.running import CHECKOUT

pytestmark = pytest.mark.e2e

WEBHOOKS = (f"validatingwebhookconfiguration/{NAME}", f"mutatingwebhookconfiguration/{NAME}")


def stop(release: Release) -> None:
    """All replicas, as when every one of them cannot start."""
    where = f"--namespace={NAMESPACE}"
    release.kubectl("scale", f"deployment/{NAME}", where, "--replicas=0")
    servers = "--selector=app.kubernetes.io/component=server"
    release.kubectl("wait", "pods", where, servers, "--for=delete", "--timeout=240s")


def others_work_goes_on(release: Release, namespace: str) -> None:
    """A pod, a Deployment and its pods."""
    pod = labelled()
    pod["metadata"]["labels"] = {"app": "mine"}
    template = {"metadata": {"labels": {"app": "theirs"}}, "spec": pod["spec"]}
    spec = {"selector": {"matchLabels": {"app": "theirs"}}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "theirs"}, "spec": spec}
    for manifest in (pod, deployment):
        release.kubectl("create", f"--namespace={namespace}", "--filename=-", input=json.dumps(manifest))
    release.kubectl("rollout", "status", "deployment/theirs", f"--namespace={namespace}", "--timeout=240s")


def refused(release: Release, manifest: dict[str, Any], namespace: str) -> str:
    where = (f"--namespace={namespace}", "--filename=-")
    done = release.kubectl("create", *where, input=json.dumps(manifest), check=False)
    assert done.returncode != 0, done.stdout
    return done.stderr


def patched(release: Release, name: str, namespace: str, **metadata: Any) -> None:
    patch = json.dumps({"metadata": metadata})
    release.kubectl("patch", "agentpool", name, f"--namespace={namespace}", "--type=merge", f"--patch={patch}")


def test_while_all_replicas_are_stopped_only_what_they_must_check_waits(release: Release) -> None:
    served = release.namespace()
    release.install()
    release.apply("cpu", served)
    release.joined("cpu", served)
    stop(release)
    for namespace in (served, release.namespace()):
        others_work_goes_on(release, namespace)
    assert 'failed calling webhook "agentpools.velda.io"' in refused(release, pool("gpu"), served)
    assert 'failed calling webhook "pods.velda.io"' in refused(release, labelled(), served)
    patched(release, "cpu", served, labels={"team": "infra"}, annotations={"note": "hello"})
    patched(release, "cpu", served, finalizers=["velda.io/agents", "example.com/theirs"])
    release.kubectl("delete", "agentpool", "cpu", f"--namespace={served}", "--wait=false")
    patched(release, "cpu", served, finalizers=None)
    release.kubectl("wait", "agentpool/cpu", f"--namespace={served}", "--for=delete", "--timeout=240s")
    release.kubectl("scale", f"deployment/{NAME}", f"--namespace={NAMESPACE}", "--replicas=1")
    release.kubectl("rollout", "status", f"deployment/{NAME}", f"--namespace={NAMESPACE}", "--timeout=240s")
    release.apply("gpu", served)
    release.joined("gpu", served)


def test_uninstall_needs_no_replica(release: Release) -> None:
    namespace = release.namespace()
    release.install("--set=uninstall.timeoutSeconds=1")
    release.apply("cpu", namespace)
    release.joined("cpu", namespace)
    stop(release)
    release.uninstall()
    assert release.remains() == []


def test_who_deletes_the_namespace_keeps_pools_and_is_in_nobodys_way(release: Release) -> None:
    namespace = release.namespace()
    release.install()
    for name in ("cpu", "gpu"):
        release.apply(name, namespace)
        release.joined(name, namespace)
    release.kubectl("delete", "namespace", NAMESPACE, "--timeout=240s")
    release.kubectl("wait", *WEBHOOKS, "--for=delete", "--timeout=240s")
    others_work_goes_on(release, namespace)
    release.apply("late", namespace)
    command = [sys.executable, "-m", "app", "uninstall", "--pools=release"]
    environment = {**os.environ, "KUBECONFIG": str(release.fleet.kubeconfig)}
    subprocess.run(command, env=environment, cwd=CHECKOUT, check=True)
    release.kubectl("delete", "agentpool", "cpu", f"--namespace={namespace}", "--timeout=240s")
    release.install()
    for name in ("gpu", "late"):
        release.joined(name, namespace)
    release.uninstall()
    assert release.remains() == []


def test_helm_is_content_with_an_owner_that_it_did_not_write(release: Release) -> None:
    def owners() -> list[Any]:
        return [release.fleet.get(name)["metadata"].get("ownerReferences") for name in WEBHOOKS]

    release.install()
    namespace = release.fleet.get("namespace", NAMESPACE)["metadata"]
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": NAMESPACE, "uid": namespace["uid"]}
    assert owners() == [[owner], [owner]]
    release.upgrade("--set=webhook.timeoutSeconds=6")
    assert owners() == [[owner], [owner]]
    release.uninstall()
    assert CRD not in release.kubectl("get", "crds", "--output=name").stdout
    assert release.remains() == []
