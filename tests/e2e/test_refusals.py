"""What must not get in: each refused at `kubectl apply`, with the field or the right that is at fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.product import Product, pool

pytestmark = pytest.mark.e2e
Manifest = dict[str, Any]


def _limits(**changes: int | None) -> Manifest:
    manifest = pool("bad")
    for field, value in changes.items():
        if value is None:
            del manifest["spec"]["autoscaler"][field]
        else:
            manifest["spec"]["autoscaler"][field] = value
    return manifest


def _no_labels() -> Manifest:
    manifest = pool("bad")
    del manifest["spec"]["template"]["metadata"]
    return manifest


def _template(change: Callable[[Manifest], None]) -> Manifest:
    manifest = pool("bad")
    change(manifest["spec"]["template"]["spec"])
    return manifest


def _set(field: str, value: Any) -> Callable[[Manifest], None]:
    return lambda spec: spec["containers"][0].update({field: value})


@pytest.mark.parametrize(
    ("manifest", "named"),
    [
        pytest.param(_no_labels(), "spec.template.metadata", id="no template labels"),
        pytest.param(_limits(minIdle=3, maxIdle=2), "maxIdle", id="maxIdle below minIdle"),
        pytest.param(_limits(maxReplicas=None), "spec.autoscaler.maxReplicas", id="maxReplicas missing"),
        pytest.param(_limits(minReplicas=9), "maxReplicas", id="minReplicas above maxReplicas"),
        pytest.param(_limits(idleDecaySecond=-1), "spec.autoscaler.idleDecaySecond", id="a negative number"),
        pytest.param(
            _template(_set("args", ["--pool=other"])),
            "spec.template.spec.containers[0].args[0]",
            id="--pool of another pool",
        ),
        pytest.param(
            _template(lambda spec: spec.update(containers=[])), "spec.template.spec.containers", id="no containers"
        ),
        pytest.param(
            _template(_set("resources", {"limits": {"memory": "8Gigs"}})),
            "spec.template.spec.containers[0].resources.limits",
            id="an invalid quantity",
        ),
        pytest.param(
            _template(_set("image", "UPPER/case:tag")), "spec.template.spec.containers[0].image", id="an invalid image"
        ),
        pytest.param(
            _template(_set("volumeMounts", [{"name": "nowhere", "mountPath": "/data"}])),
            "spec.template.spec.containers[0].volumeMounts[0].name",
            id="only a rehearsal shows it: a mount of no volume",
        ),
    ],
)
def test_a_bad_pool_is_refused_with_its_field(velda: Product, manifest: Manifest, named: str) -> None:
    namespace = velda.namespace()
    said = velda.refuse(manifest, namespace=namespace)
    assert named in said
    assert velda.stage.get("agentpools", f"--namespace={namespace}")["items"] == []


def test_all_mistakes_are_told_at_once(velda: Product) -> None:
    manifest = _template(_set("args", ["--pool=other"]))
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = "UPPER/case:tag"
    said = velda.refuse(manifest, namespace=velda.namespace())
    assert "args[0]" in said
    assert "image" in said


def test_a_requester_who_may_not_create_pods_is_refused(velda: Product) -> None:
    namespace = velda.namespace()
    rules = ["--verb=get,create,patch,update", "--resource=agentpools.velda.io"]
    velda.kubectl("create", "role", "pools-only", *rules, f"--namespace={namespace}")
    velda.kubectl("create", "rolebinding", "eve", "--role=pools-only", "--user=eve", f"--namespace={namespace}")
    said = velda.refuse(pool("p"), namespace=namespace, user="eve")
    assert "eve" in said
    assert "create pods" in said
    velda.kubectl("create", "rolebinding", "admin", "--clusterrole=edit", "--user=eve", f"--namespace={namespace}")
    velda.apply(pool("p"), namespace=namespace)


def test_odd_pools_are_taken_with_warnings(velda: Product) -> None:
    manifest = pool("odd")
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    del container["resources"], container["securityContext"]
    namespace = velda.namespace()
    done = velda.kubectl("apply", f"-n={namespace}", "--dry-run=server", "-f", "-", input=json.dumps(manifest))
    assert "Warning" in done.stderr
    assert "resources.limits" in done.stderr
    assert "privileged" in done.stderr
