"""Every command of the user documentation's chapters, with the documentation's manifests unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e.product import EXAMPLES, Product, pool
from tests.support.running import CHECKOUT

pytestmark = pytest.mark.e2e
DOCUMENTATION = CHECKOUT.parent / "shared" / "reference" / "kubernetes-crd-integration.md"
POOLS = {"cpu-pool": 3, "gpu-pool": 1, "shell": 1}
"""The documentation's pools, with the agents that each has when nothing happens."""


@pytest.fixture(scope="module")
def documented(velda: Product) -> Iterator[Product]:
    for name in ("velda-config", *POOLS):
        velda.kubectl("apply", "-f", str(EXAMPLES / f"{name}.yaml"))
    for name, agents in POOLS.items():
        velda.wait(name, namespace="default", idleReplicas=agents, timeout=60)
    yield velda
    velda.kubectl("delete", "agentpool", "--all", "--namespace=default", "--timeout=240s")
    assert velda.stage.get("pods", "--namespace=default")["items"] == []


def test_the_examples_are_the_documentations_own() -> None:
    if not DOCUMENTATION.exists():
        pytest.skip("the reference documentation is not beside this checkout")
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    for name in ("velda-config", *POOLS):
        assert (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8") in blocks


def test_a_second_diff_prints_nothing(documented: Product) -> None:
    for name in POOLS:
        done = documented.kubectl("diff", "-f", str(EXAMPLES / f"{name}.yaml"))
        assert done.stdout == ""


@pytest.mark.parametrize("kind", ["agentpools", "ap"])
def test_list_pools(documented: Product, kind: str) -> None:
    lines = documented.kubectl("get", kind, "-n", "default").stdout.splitlines()
    assert lines[0].split()[0] == "NAME"
    assert lines[0].split()[-1] == "AGE"
    assert [line.split()[0] for line in lines[1:]] == sorted(POOLS)


def test_view_pool_details(documented: Product) -> None:
    said = documented.kubectl("describe", "agentpool", "shell", "-n", "default").stdout
    for word in ("Conditions:", "Ready", "Last Decision", "Events:", "Created 1 agent"):
        assert word in said


def test_get_pool_as_yaml_shows_what_the_user_wrote(documented: Product) -> None:
    said = documented.kubectl("get", "agentpool", "shell", "-n", "default", "-o", "yaml").stdout
    assert "--pool=shell" in said
    spec = documented.stage.get("agentpool", "shell", "-n=default")["spec"]["template"]["spec"]
    assert len(spec["volumes"]) == len(spec["containers"][0]["volumeMounts"]) == 1


def test_update_a_pool(documented: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBE_EDITOR", "sed -i 's/maxIdle: 3/maxIdle: 4/'")
    done = documented.kubectl("edit", "agentpool", "gpu-pool", "-n", "default")
    assert "edited" in done.stdout
    generation = documented.stage.get("agentpool", "gpu-pool", "-n=default")["metadata"]["generation"]
    documented.wait("gpu-pool", namespace="default", observedGeneration=generation)
    documented.kubectl("apply", "-f", str(EXAMPLES / "gpu-pool.yaml"))


@pytest.mark.parametrize(
    ("selector", "count"), [("group=velda-agent", 1), ("app=velda-agent,pool=gpu-pool", 1), ("pool=cpu-pool", 3)]
)
def test_check_worker_pods(documented: Product, selector: str, count: int) -> None:
    lines = documented.kubectl("get", "pods", "-n", "default", "-l", selector, "-o", "wide", "--no-headers").stdout
    assert len(lines.splitlines()) == count


def test_the_crd_is_installed(documented: Product) -> None:
    documented.kubectl("get", "crd", "agentpools.velda.io")


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_the_server_may_read_pools(documented: Product, verb: str) -> None:
    account = "--as=system:serviceaccount:velda:velda-apiserver"
    done = documented.kubectl("auth", "can-i", verb, "agentpools.velda.io", account, "-n", "default")
    assert done.stdout.strip() == "yes"
    assert "agentpools.velda.io" in documented.kubectl("auth", "can-i", "--list", account, "-n", "default").stdout


def test_troubleshooting_commands(documented: Product) -> None:
    documented.kubectl("get", "configmap", "velda-config", "-n", "default")
    pods = documented.kubectl("get", "pods", "-n", "default", "-l", "group=velda-agent", "-o", "name").stdout.split()
    assert "velda-config" in documented.kubectl("describe", pods[0], "-n", "default").stdout
    path = "jsonpath={.spec.template.metadata.labels}"
    assert "velda-agent-shell" in documented.kubectl("get", "agentpool", "shell", "-n", "default", "-o", path).stdout


def test_explain_says_what_counts_slots_and_what_counts_agents(documented: Product) -> None:
    said = documented.kubectl("explain", "agentpool.spec.autoscaler").stdout
    assert "slots" in said
    assert "agents" in said


def test_scale_sets_the_least_size(documented: Product) -> None:
    documented.kubectl("scale", "agentpool", "cpu-pool", "--replicas=4", "-n", "default")
    documented.wait("cpu-pool", namespace="default", replicas=4, idleReplicas=4)
    documented.kubectl("apply", "-f", str(EXAMPLES / "cpu-pool.yaml"))


def test_pods_of_a_pool_without_volumes_carry_the_configuration(documented: Product) -> None:
    documented.apply(pool("bare"), namespace="default")
    documented.wait("bare", namespace="default", idleReplicas=1)
    (pod,) = documented.pods("bare", namespace="default")
    container = pod["spec"]["containers"][0]
    assert "/run/velda" in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert container["args"] == ["--pool=bare"]
    stored = documented.stage.get("agentpool", "bare", "-n=default")["spec"]["template"]
    assert stored == pool("bare")["spec"]["template"]


def test_delete_a_pool(documented: Product) -> None:
    documented.kubectl("delete", "agentpool", "cpu-pool", "-n", "default", "--timeout=240s")
    assert documented.pods("cpu-pool", namespace="default") == []
    documented.kubectl("apply", "-f", str(EXAMPLES / "cpu-pool.yaml"))
