"""No permanent OutOfSync: chart and pools are synced twice, and Argo CD's own comparison finds nothing afterwards.

The process has filled caBundle, Secret and ConfigMaps by then, and the API server has set its defaults.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.release import NAME, NAMESPACE
from tests.chart.support import pick, render
from tests.gitops.argocd import ArgoCD, Manifest, tracked, whole
from tests.support.cluster import Fleet
from tests.support.running import CHECKOUT

pytestmark = pytest.mark.e2e

IN_RELEASE = f"--namespace={NAMESPACE}"
FILLED = {
    f"secret/{NAME}-tls": "{.data.tls\\.crt}",
    f"configmap/{NAME}-ca": "{.data.ca\\.crt}",
    f"validatingwebhookconfiguration/{NAME}": "{.webhooks[0].clientConfig.caBundle}",
    f"mutatingwebhookconfiguration/{NAME}": "{.webhooks[0].clientConfig.caBundle}",
    f"lease/{NAME}": "{.spec.holderIdentity}",
}


class Synced:
    """What Argo CD has applied, and how the process has filled it."""

    def __init__(self, fleet: Fleet) -> None:
        self.argo, self.kubectl = ArgoCD(fleet), fleet.kubectl
        self.chart = tracked(render("uninstall.timeoutSeconds=1"), application="velda")
        self.namespace = fleet.namespace()
        self.pools = tracked(examples(self.namespace), application="pools")

    def sync(self, *, server_side: bool = False) -> None:
        for manifests in (self.chart, self.pools):
            self.argo.sync(manifests, server_side=server_side)

    def differences(self) -> dict[str, Any]:
        return {**self.argo.differences(self.chart), **self.argo.differences(self.pools)}

    def until_filled(self) -> None:
        for name, path in FILLED.items():
            self.kubectl("wait", name, IN_RELEASE, f"--for=jsonpath={path}", "--timeout=60s")
        self.kubectl("rollout", "status", f"deployment/{NAME}", IN_RELEASE, "--timeout=120s")

    def until_told(self) -> None:
        where = (f"--namespace={self.namespace}", "--for=condition=Ready", "--timeout=60s")
        self.kubectl("wait", "agentpool/shell", *where)

    def clean(self) -> None:
        self.kubectl("delete", "agentpools", "--all", f"--namespace={self.namespace}", "--timeout=60s")
        self.kubectl("delete", "--ignore-not-found", "--filename=-", "--timeout=60s", input=whole(self.chart))
        self.kubectl("delete", "namespace", self.namespace, "--timeout=90s")


def examples(namespace: str) -> list[Manifest]:
    """The documentation's pools and their ConfigMap, as they are in examples/."""
    names = ("velda-config", "cpu-pool", "gpu-pool", "shell")
    loaded = [yaml.safe_load((CHECKOUT / "examples" / f"{name}.yaml").read_text()) for name in names]
    return [{**item, "metadata": {**item["metadata"], "namespace": namespace}} for item in loaded]


@pytest.fixture(scope="module")
def synced(fleet: Fleet) -> Iterator[Synced]:
    """Twice, in order: the chart until it works, then the pools."""
    synced = Synced(fleet)
    fleet.kubectl("create", "namespace", NAMESPACE, check=False)
    try:
        synced.argo.sync(synced.chart)
        synced.until_filled()
        synced.argo.sync(synced.pools)
        synced.until_told()
        synced.sync()
        yield synced
    finally:
        synced.clean()


def test_nothing_differs_after_a_sync_by_apply_and_one_by_server_side_apply(synced: Synced) -> None:
    assert {item["kind"] for item in synced.pools} == {"AgentPool", "ConfigMap"}
    assert synced.differences() == {}
    synced.sync(server_side=True)
    assert synced.differences() == {}


def test_what_the_process_makes_is_none_of_argo_cds(synced: Synced) -> None:
    kinds = "pods,controllerrevisions,leases,configmaps"
    found = json.loads(synced.kubectl("get", kinds, "--all-namespaces", "--output=json").stdout)["items"]
    made = [item for item in found if "tracking-id" not in str(item["metadata"].get("annotations"))]
    made = [item for item in made if "velda" in item["metadata"]["name"] or "shell" in item["metadata"]["name"]]
    assert {"Pod", "ControllerRevision", "Lease"} <= {item["kind"] for item in made}
    assert not [item for item in made if "argocd.argoproj.io" in str(item)]


@pytest.mark.parametrize("way", ["three-way merge", "structured merge", "server-side"])
def test_a_change_in_git_is_a_difference_in_every_way_of_comparing(synced: Synced, way: str) -> None:
    pool = pick(synced.pools, "AgentPool", "shell")
    assert (
        way in synced.argo.differences([changed(pool, "spec", "autoscaler", "maxReplicas", value=5)])["AgentPool/shell"]
    )


def test_a_rendered_ca_bundle_if_only_an_empty_one_would_be_a_difference_for_ever(synced: Synced) -> None:
    webhooks = pick(synced.chart, "ValidatingWebhookConfiguration", NAME)
    assert synced.argo.differences([changed(webhooks, "webhooks", 0, "clientConfig", "caBundle", value="")])


def changed(manifest: Manifest, *path: str | int, value: Any) -> Manifest:
    made = copy.deepcopy(manifest)
    at: Any = made
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return made
