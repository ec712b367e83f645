"""examples/argocd and examples/flux are what those tools take, by their own CRDs and types; the documented copy too."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.support import pick, render
from tests.docs.blocks import blocks, commands
from tests.gitops.argocd import ask
from tests.gitops.lua import SCRIPT
from tests.support.cluster import Cluster
from tests.support.running import CHECKOUT
from tests.support.tools import tool
from tests.support.tools.source import source

EXAMPLES = CHECKOUT / "examples"
ARGO_CD, KUSTOMIZE, SOURCES = (
    "github.com/argoproj/argo-cd/v3",
    "github.com/fluxcd/kustomize-controller",
    "github.com/fluxcd/source-controller",
)
CRDS = {
    "applications.argoproj.io": (ARGO_CD, "manifests/crds/application-crd.yaml"),
    "kustomizations.kustomize.toolkit.fluxcd.io": (
        KUSTOMIZE,
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    ),
    "gitrepositories.source.toolkit.fluxcd.io": (
        SOURCES,
        "config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml",
    ),
}
KEY = "resource.customizations.health.velda.io_AgentPool"


def manifests(directory: str) -> list[dict[str, Any]]:
    files = sorted((EXAMPLES / directory).glob("*.yaml"))
    return [item for file in files for item in yaml.safe_load_all(file.read_text()) if item]


@pytest.fixture(scope="module")
def gitops(cluster: Cluster) -> Iterator[Cluster]:
    """With the CRDs of Argo CD and Flux."""
    with cluster.with_crds({name: source("gitopscrds", module) / path for name, (module, path) in CRDS.items()}):
        yield cluster


@pytest.mark.parametrize("directory", ["argocd", "flux"])
def test_the_api_server_takes_them_with_the_tools_own_crds(gitops: Cluster, directory: str) -> None:
    namespace = gitops.namespace()
    served = [item for item in manifests(directory) if item["kind"] != "HelmRelease"]
    assert len(served) >= 2
    for item in served:
        item["metadata"]["namespace"] = namespace
    gitops.dry_run(*served)
    served[0]["spec"]["surce"] = {}
    done = gitops.dry_run(served[0], check=False)
    assert "surce" in done.stderr, "a mistake would be found"


def test_the_helm_release_is_of_fluxs_type() -> None:
    (release,) = (item for item in manifests("flux") if item["kind"] == "HelmRelease")
    wrong = {**release, "spec": {**release["spec"], "chrt": {}}}
    taken, refused = ask("strict", objects=[release, wrong])
    assert taken["status"] == "Taken", taken["message"]
    assert 'unknown field "chrt"' in refused["message"]


def test_the_values_in_them_are_the_charts() -> None:
    values = [manifests("argocd")[-1]["spec"]["source"]["helm"]["valuesObject"]]
    values += [item["spec"]["values"] for item in manifests("flux") if item["kind"] == "HelmRelease"]
    assert len(values) == 2
    for given in values:
        assert render(*_flat(given)), "helm refuses unknown keys"


def _flat(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}={str(value).lower()}"


def test_the_documented_copy_adds_one_key_to_argo_cds_config_map(cluster: Cluster, tmp_path: Path) -> None:
    """The page's own commands, in a namespace that is both the release's and Argo CD's."""
    namespace = cluster.namespace()
    theirs: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm"},
        "data": {"url": "https://a"},
    }
    shipped = pick(render("argocd.healthChecks.enabled=true"), "ConfigMap", "velda-apiserver-argocd")
    for item in (theirs, shipped):
        item["metadata"]["namespace"] = namespace
        cluster.kubectl("apply", "--filename=-", input=yaml.safe_dump(item))
    (block,) = blocks((CHECKOUT / "docs" / "gitops.md").read_text())
    upgrade, *copy = commands(block)
    assert upgrade.startswith("helm upgrade")
    text = re.sub("--namespace (velda|argocd)", f"--namespace {namespace}", "\n".join(copy))
    environment = {"PATH": f"{tool('kubectl').parent}:/usr/bin:/bin", "KUBECONFIG": str(cluster.kubeconfig)}
    done = subprocess.run(["bash", "-euc", text], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    found = cluster.get("configmap", "argocd-cm", f"--namespace={namespace}")["data"]
    assert found == {"url": "https://a", KEY: SCRIPT.read_text()}
