"""The CRD on a real API server, by the real kubectl, with nothing of ours running: what it alone must hold."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from app.core.validation import LIMITS
from crd.generate import EDITOR, LIMIT, TARGETS, render, render_editor
from tests.support.cluster import Cluster
from tests.support.running import CHECKOUT

Manifest = dict[str, Any]
EXAMPLES = CHECKOUT / "examples"
TABLE = {
    "minReplicas": 0,
    "maxReplicas": None,
    "minIdle": None,
    "maxIdle": None,
    "idleDecaySecond": 60,
    "killUnknownAfterSecond": 300,
    "defaultSlotsPerAgent": 1,
}
"""The documentation's table of fields, with their defaults; None is required."""


@pytest.fixture(scope="module")
def crd(cluster: Cluster) -> Cluster:
    """Installed as the documentation says: plainly, without a server-side flag."""
    cluster.install_crd()
    return cluster


@pytest.fixture
def namespace(crd: Cluster) -> str:
    return crd.namespace()


def pool() -> Manifest:
    loaded: Manifest = yaml.safe_load((EXAMPLES / "shell.yaml").read_text(encoding="utf-8"))
    del loaded["metadata"]["namespace"]
    return loaded


def apply(crd: Cluster, manifest: Manifest, namespace: str, *, check: bool = True) -> str:
    done = crd.kubectl("apply", f"-n={namespace}", "-f", "-", input=json.dumps(manifest), check=check)
    assert check or done.returncode != 0, "not refused"
    return done.stdout + done.stderr


def test_the_committed_files_are_what_the_generator_makes_and_fit_into_an_annotation() -> None:
    text = render()
    assert len(text.encode()) < LIMIT
    for path in TARGETS:
        assert path.read_text(encoding="utf-8") == text, "run make crd"
    assert EDITOR.read_text(encoding="utf-8") == render_editor(), "run make crd"


def test_the_table_of_fields_and_their_defaults(crd: Cluster, namespace: str) -> None:
    manifest = pool()
    manifest["spec"]["autoscaler"] = {"maxReplicas": 4, "minIdle": 1, "maxIdle": 2}
    apply(crd, manifest, namespace)
    stored = crd.get("agentpool", "shell", f"-n={namespace}")["spec"]["autoscaler"]
    defaults = {field: value for field, value in TABLE.items() if value is not None}
    assert stored == {"maxReplicas": 4, "minIdle": 1, "maxIdle": 2, "joinTimeoutSecond": 600} | defaults
    assert LIMITS.keys() >= TABLE.keys()


@pytest.mark.parametrize("name", ["cpu-pool", "gpu-pool", "shell"])
def test_the_documentations_pools_apply_unchanged_and_show_no_difference(crd: Cluster, name: str) -> None:
    file = str(EXAMPLES / f"{name}.yaml")
    crd.kubectl("apply", "-f", file)
    assert crd.kubectl("diff", "-f", file).stdout == ""
    crd.kubectl("apply", "--server-side", "--force-conflicts", "-f", file)
    assert crd.kubectl("diff", "--server-side", "--force-conflicts", "-f", file).stdout == ""
    crd.kubectl("delete", "-f", file)


def _autoscaler(**changes: Any) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        limits = manifest["spec"]["autoscaler"]
        for field, value in changes.items():
            limits.pop(field, None) if value is None else limits.update({field: value})

    return change


def _pod(**changes: Any) -> Callable[[Manifest], None]:
    return lambda manifest: manifest["spec"]["template"]["spec"].update(changes)


REFUSED: list[tuple[Callable[[Manifest], object], str]] = [
    (_autoscaler(maxReplicas=None), "spec.autoscaler.maxReplicas: Required value"),
    (_autoscaler(minIdle=None), "spec.autoscaler.minIdle: Required value"),
    (_autoscaler(maxIdle=None), "spec.autoscaler.maxIdle: Required value"),
    (_autoscaler(minIdle=3), "spec.autoscaler.maxIdle: Invalid value: must be at least minIdle"),
    (_autoscaler(minReplicas=9), "spec.autoscaler.maxReplicas: Invalid value: must be at least minReplicas"),
    (_autoscaler(minReplicas=-1), "spec.autoscaler.minReplicas"),
    (_autoscaler(idleDecaySecond=-1), "spec.autoscaler.idleDecaySecond"),
    (_autoscaler(defaultSlotsPerAgent=0), "spec.autoscaler.defaultSlotsPerAgent"),
    (_autoscaler(maxReplicas=2**31), "spec.autoscaler.maxReplicas"),
    (_autoscaler(maxReplicas="4"), "spec.autoscaler.maxReplicas"),
    (lambda m: m["spec"]["template"].pop("metadata"), "spec.template.metadata.labels: Required value"),
    (
        lambda m: m["spec"]["template"]["metadata"].update(labels={}),
        "spec.template.metadata.labels: Required value",
    ),
    (_pod(containers=[]), "spec.template.spec.containers: Required value"),
    (lambda m: m["spec"]["template"]["spec"].pop("containers"), "spec.template.spec.containers: Required value"),
    (
        lambda m: m["spec"]["template"]["spec"]["containers"][0]["resources"].update(limits={"memory": "8Gigs"}),
        "spec.template.spec.containers[0].resources.limits.memory: Invalid value",
    ),
    (lambda m: m["spec"].pop("autoscaler"), "spec.autoscaler: Required value"),
    (lambda m: m.pop("spec"), "spec: Required value"),
    (lambda m: m["spec"].update(rollout={"maxSurge": "a lot"}), "spec.rollout.maxSurge"),
    (lambda m: m["spec"].update(rollout={"maxSurge": 0, "maxUnavailable": "0%"}), "spec.rollout.maxUnavailable"),
]
"""Changes of a good pool, and what the API server says of each."""


@pytest.mark.parametrize(("change", "named"), REFUSED)
def test_what_the_crd_alone_refuses(
    crd: Cluster, namespace: str, change: Callable[[Manifest], object], named: str
) -> None:
    manifest = pool()
    change(manifest)
    said = apply(crd, manifest, namespace, check=False)
    assert named.replace("Invalid value: must", "Invalid value: ") in said or named in _without_values(said), said


def _without_values(said: str) -> str:
    """kubectl's errors with the objects left out that it quotes between the field and the message."""
    return "\n".join(
        f"{line.partition(': Invalid value: ')[0]}: Invalid value: {line.rpartition(': ')[2]}"
        if ": Invalid value: " in line
        else line
        for line in said.splitlines()
    )


def test_typos_in_our_own_fields_are_told(crd: Cluster, namespace: str) -> None:
    manifest = pool()
    manifest["spec"]["autoscaler"]["maxReplica"] = 3
    assert 'unknown field "spec.autoscaler.maxReplica"' in apply(crd, manifest, namespace, check=False)


def test_pod_fields_of_a_newer_kubernetes_and_template_labels_are_kept(crd: Cluster, namespace: str) -> None:
    manifest = pool()
    template = manifest["spec"]["template"]
    template["metadata"]["annotations"] = {"example.com/a": "b"}
    template["spec"]["fieldOfTheFuture"] = {"a": 1}
    template["spec"]["containers"][0]["alsoNew"] = True
    template["spec"]["containers"][0]["ports"] = [{"containerPort": 22}, {"containerPort": 53, "protocol": "UDP"}]
    apply(crd, manifest, namespace)
    stored = crd.get("agentpool", "shell", f"-n={namespace}")["spec"]["template"]
    expected = copy.deepcopy(template)
    expected["spec"]["containers"][0]["ports"][0]["protocol"] = "TCP"
    assert stored == expected


@pytest.mark.parametrize("cpu", [0.5, 1, "0.5", "500m", "1e-1"])
def test_a_quantity_may_be_whatever_it_may_be_in_a_pod(crd: Cluster, namespace: str, cpu: float | str) -> None:
    manifest = pool()
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": cpu}}
    apply(crd, manifest, namespace)
    stored = crd.get("agentpool", "shell", f"-n={namespace}")["spec"]["template"]["spec"]
    assert stored["containers"][0]["resources"] == {"limits": {"cpu": cpu}}
    assert crd.kubectl("diff", f"-n={namespace}", "-f", "-", input=json.dumps(manifest)).stdout == ""


def test_names_columns_and_categories(crd: Cluster, namespace: str) -> None:
    apply(crd, pool(), namespace)
    for kind in ("ap", "agentpool", "agentpools.velda.io", "all"):
        lines = crd.kubectl("get", kind, f"-n={namespace}").stdout.splitlines()
        assert (lines[0].split()[0], lines[0].split()[-1]) == ("NAME", "AGE")
        assert lines[1].split()[0] in ("shell", "agentpool.velda.io/shell")


def test_scale_sets_min_replicas_also_where_it_was_never_written(crd: Cluster, namespace: str) -> None:
    apply(crd, pool(), namespace)
    crd.kubectl("scale", "agentpool", "shell", "--replicas=3", f"-n={namespace}")
    assert crd.get("agentpool", "shell", f"-n={namespace}")["spec"]["autoscaler"]["minReplicas"] == 3
    said = crd.kubectl("scale", "agentpool", "shell", "--replicas=9", f"-n={namespace}", check=False).stderr
    assert "maxReplicas" in said


def test_explain_has_words_for_our_fields(crd: Cluster) -> None:
    for field in ("spec.autoscaler.minIdle", "spec.rollout.maxSurge", "status.lastDecision.rule", "spec.template"):
        said = crd.kubectl("explain", f"agentpool.{field}").stdout
        assert "<no description>" not in said.split("FIELDS:")[0]
    assert "slots" in crd.kubectl("explain", "agentpool.spec.autoscaler.minIdle").stdout
