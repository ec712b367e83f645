"""Every manifest that the chart can render, as the real API server sees it."""

from __future__ import annotations

import pytest
import yaml

from tests.chart.support import NAMESPACE, VARIANTS, render
from tests.support.cluster import Cluster
from tests.support.running import CHECKOUT


@pytest.fixture(scope="module")
def home(cluster: Cluster) -> Cluster:
    """With the release's namespace."""
    if cluster.kubectl("create", "namespace", NAMESPACE, check=False).returncode:
        cluster.kubectl("get", "namespace", NAMESPACE)
    return cluster


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_manifest_is_valid(home: Cluster, values: tuple[str, ...]) -> None:
    manifests = render(*values)
    # A pod is refused without its service account.
    accounts = [item for item in manifests if item["kind"] == "ServiceAccount"]
    home.kubectl("apply", "--server-side", "--filename=-", input=yaml.safe_dump_all(accounts))
    options = ("--dry-run=server", "--server-side", "--force-conflicts", "--validate=strict")
    done = home.kubectl("apply", *options, "--filename=-", input=yaml.safe_dump_all(manifests), check=False)
    assert done.returncode == 0, done.stderr
    # Another test may have applied the CRD from the client's side.
    assert not [line for line in done.stderr.splitlines() if "last-applied-configuration" not in line]


def test_the_pods_pass_the_strictest_pod_security(home: Cluster) -> None:
    namespace = home.namespace()
    home.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    home.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    for item in render():
        if item["kind"] in ("Deployment", "Job", "Pod"):
            item["metadata"]["namespace"] = namespace
            if item["kind"] == "Pod":
                item["spec"]["serviceAccountName"] = "default"
            done = home.kubectl("apply", "--dry-run=server", "--filename=-", input=yaml.safe_dump(item))
            assert "would violate" not in done.stderr


def test_the_plain_rbac_manifest_is_valid_and_enough_to_list_pools(home: Cluster) -> None:
    home.install_crd()
    manifest = CHECKOUT / "crd" / "velda-rbac.yaml"
    home.kubectl("apply", f"--filename={manifest}")
    try:
        who = f"--as=system:serviceaccount:{NAMESPACE}:velda-apiserver"
        done = home.kubectl("auth", "can-i", "list", "agentpools.velda.io", who, "--namespace=default", check=False)
        assert done.stdout.strip() == "yes"
        denied = home.kubectl("auth", "can-i", "create", "secrets", who, f"--namespace={NAMESPACE}", check=False)
        assert denied.stdout.strip() == "no"
    finally:
        home.kubectl("delete", f"--filename={manifest}", "--wait=false")
