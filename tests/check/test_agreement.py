"""`check` says of each bad pool what the webhook and the CRD say, and takes what they take."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from app.check.manifest import check
from app.core.validation import validate
from app.model.agentpool import PoolSpec
from tests.core.test_validation import MISTAKES, good
from tests.crd.test_crd import REFUSED, apply, pool
from tests.support.cluster import Cluster
from tests.support.running import CHECKOUT

Change = Callable[[Any], object]


def errors(manifest: Any) -> list[str]:
    found = check(json.dumps(manifest))
    assert found.pools == 1
    return [f"{each.field}: {each.message}" for each in found.problems if each.severity == "error"]


@pytest.mark.parametrize("edit", [edit for edit, _ in MISTAKES])
def test_the_webhook(edit: Change) -> None:
    spec = good()
    edit(spec)
    said = validate("cpu-pool", spec)
    assert not isinstance(said, PoolSpec)
    manifest = {"apiVersion": "velda.io/v1", "kind": "AgentPool", "metadata": {"name": "cpu-pool"}, "spec": spec}
    assert errors(manifest) == [str(error) for error in said]


@pytest.mark.parametrize(("change", "named"), REFUSED)
def test_the_crd(change: Change, named: str) -> None:
    """The tests of the CRD show that the API server names the same field of the same pools."""
    manifest = pool()
    change(manifest)
    (said,) = errors(manifest)
    field, _, kind = named.partition(": ")
    assert said.replace("[memory]", ".memory").startswith(f"{field}: {kind.partition(':')[0]}")


def _agent(**changes: Any) -> Change:
    return lambda manifest: manifest["spec"]["template"]["spec"]["containers"][0].update(changes)


def _add_container(manifest: Any) -> None:
    containers = manifest["spec"]["template"]["spec"]["containers"]
    containers.append(containers[0])


def _rename(manifest: Any) -> None:
    manifest["metadata"]["name"] = "A_b"
    del manifest["spec"]["template"]["spec"]["containers"][0]["args"]


PORT = {"containerPort": 22}
ALIKE = [
    (_agent(ports=[{"containerPort": "ssh"}]), "spec.template.spec.containers[0].ports[0].containerPort"),
    (_agent(ports=[PORT, PORT]), "spec.template.spec.containers[0].ports[1]"),
    (_agent(env=[{"value": "a"}]), "spec.template.spec.containers[0].env[0].name"),
    (_agent(imagePullPolicy=["Always"]), "spec.template.spec.containers[0].imagePullPolicy"),
    (_add_container, "spec.template.spec.containers[1]"),
    (lambda m: m["spec"].update(rollout={"strategy": "Recreate"}), "spec.rollout.strategy"),
    (lambda m: m["spec"]["autoscaler"].update(maxIdel=1), "spec.autoscaler.maxIdel"),
    (lambda m: m["spec"]["template"]["metadata"].update(lables={}), "spec.template.metadata.lables"),
    (lambda m: m.update(specs={}), "specs"),
    (_rename, "metadata.name"),
    (lambda m: m["spec"].update(schedules=[{"name": "a", "schedule": "0 0 * * *", "durationSecond": 0, "minIdle": 1}]),
     "spec.schedules[0].durationSecond"),
]  # fmt: skip


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> str:
    cluster.install_crd()
    return cluster.namespace()


@pytest.mark.parametrize(("change", "field"), ALIKE)
def test_what_only_the_schema_knows(cluster: Cluster, namespace: str, change: Change, field: str) -> None:
    manifest = pool()
    change(manifest)
    assert field in apply(cluster, manifest, namespace, check=False)
    (said,) = errors(manifest)
    assert said.startswith(field)


TAKEN: list[Change] = [
    lambda m: None,
    lambda m: m["spec"]["autoscaler"].update(minReplicas=None),
    lambda m: m["spec"].update(rollout=None, schedules=None),
    lambda m: m["spec"].update(rollout={"maxSurge": 1, "maxUnavailable": "10%"}),
    lambda m: m["metadata"].update(annotations={"a": "b"}),
    lambda m: m.update(status={"replicas": 1}),
    _agent(resources={"limits": {"cpu": 0.5, "memory": "1e9"}}),
    _agent(ports=[PORT, {**PORT, "protocol": "UDP"}]),
    _agent(readinessProbe={"httpGet": {"port": "http"}}, livenessProbe={"httpGet": {"port": 80}}),
    _agent(fieldOfTheFuture={"a": 1}),
]


@pytest.mark.parametrize("change", TAKEN)
def test_what_is_taken(cluster: Cluster, namespace: str, change: Change) -> None:
    manifest = pool()
    change(manifest)
    assert errors(manifest) == []
    cluster.kubectl("create", "--dry-run=server", f"-n={namespace}", "-f", "-", input=json.dumps(manifest))


@pytest.mark.parametrize("name", ["cpu-pool", "gpu-pool", "shell"])
def test_the_examples(name: str) -> None:
    assert errors(yaml.safe_load((CHECKOUT / "examples" / f"{name}.yaml").read_text())) == []
