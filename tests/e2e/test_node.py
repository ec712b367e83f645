"""The product as containers on a real node: installed by helm, joined by DNS name, gone without a trace."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE

import pytest
import yaml

from tests.e2e.product import EXAMPLES, NAMESPACE, Product, Sessions, pool
from tests.support.cluster import NodeStage

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def product(node_stage: NodeStage) -> Product:
    release = Product(node_stage)
    release.install()
    for name in ("velda-config", "cpu-pool", "gpu-pool", "shell"):
        release.kubectl("apply", "-f", str(EXAMPLES / f"{name}.yaml"))
    release.wait("shell", namespace="default", idleReplicas=1, timeout=90)
    return release


def test_the_image_becomes_ready_and_helm_test_passes(product: Product) -> None:
    done = product.stage.helm("test", "velda", f"--namespace={NAMESPACE}", "--timeout=240s")
    assert "Succeeded" in done.stdout


def test_shell_agents_are_containers_that_joined_by_name(product: Product, node_stage: NodeStage) -> None:
    (pod,) = product.pods("shell", namespace="default")
    assert pod["spec"]["nodeName"] == node_stage.node
    said = product.kubectl("logs", pod["metadata"]["name"], "--namespace=default").stdout
    assert "joined pool shell" in said
    config = product.kubectl("exec", pod["metadata"]["name"], "-n=default", "--", "cat", "/run/velda/velda.yaml").stdout
    assert "velda-apiserver.default.svc.cluster.local:50051" in config


def test_the_image_lists_what_it_is_made_of_and_runs_as_nobody(product: Product) -> None:
    (pod,) = product.pods("shell", namespace="default")
    code = "import importlib.metadata as m; print(*{f'{d.name.lower()}@{d.version}' for d in m.distributions()})"

    def inside(*command: str) -> str:
        return product.kubectl("exec", pod["metadata"]["name"], "-n=default", "--", *command).stdout

    listed = json.loads(inside("cat", "/opt/velda/sbom.cdx.json"))
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.5")
    names = {f"{item['name']}@{item['version']}" for item in listed["components"]}
    installed = {line.replace("_", "-") for line in inside("python", "-c", code).split()}
    assert installed <= names
    assert {name.partition("@")[0] for name in names - installed} == {"colorama"}  # of Windows alone, says its marker
    assert all(any("hashes" in file for file in item["externalReferences"]) for item in listed["components"])
    assert inside("id", "-u").strip() == "65532"


async def test_a_session_runs_inside_of_its_container(product: Product) -> None:
    async with Sessions(product.broker, token=product.user("ada", namespace="default")) as sessions:
        session = await sessions.run("shell", timeout=30)
        pods = {
            pod["status"].get("podIP"): pod["metadata"]["name"] for pod in product.pods("shell", namespace="default")
        }
        name, port = pods[session.ssh_connection.host], session.ssh_connection.port
        code = f"import socket; print(socket.create_connection(('127.0.0.1', {port})).makefile().readline())"
        exec_python = ("exec", name, "--namespace=default", "--", "python", "-c", code)
        assert session.session_id in product.kubectl(*exec_python).stdout
        await asyncio.to_thread(
            product.wait, "shell", namespace="default", runningReplicas=1, idleReplicas=1, timeout=60
        )
        await sessions.end(session)
        await asyncio.to_thread(product.wait, "shell", namespace="default", runningReplicas=0, timeout=60)


async def test_commands_without_a_server_go_through_kubectl_and_outlive_the_leader(
    product: Product, node_stage: NodeStage
) -> None:
    """By the kubeconfig's certificate, and the CA that the server publishes."""
    environment = {**os.environ, "KUBECONFIG": str(node_stage.kubeconfig)}

    async def start(*args: str) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "app", *args)
        return await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=PIPE)

    async def velda(*args: str) -> str:
        process = await start(*args)
        out, error = await asyncio.wait_for(process.communicate(), timeout=60)
        assert process.returncode == 0, error.decode()
        return out.decode().strip()

    assert "shell" in (await velda("pool", "list", "--namespace=default", "-o", "name")).split()
    session = await velda("session", "run", "shell", "-o", "name")
    assert (await velda("session", "list", "-o", "name")).split() == [session]
    await velda("session", "kill", session)

    namespace = product.namespace()
    product.apply(pool("watched", minIdle=0, maxIdle=0), namespace=namespace)
    product.condition("watched", "Ready", "True", namespace=namespace)
    watching = await start("pool", "watch", f"{namespace}/watched")
    assert watching.stdout
    assert watching.stderr
    assert b"no allocation error" in await asyncio.wait_for(watching.stdout.readline(), timeout=60)
    (leader,) = product.kubectl("get", "pods", "-l=velda.io/role=leader", "-oname", f"-n={NAMESPACE}").stdout.split()
    product.kubectl("delete", leader, f"-n={NAMESPACE}", "--grace-period=1", "--wait=false")
    assert b"trying again" in await asyncio.wait_for(watching.stderr.readline(), timeout=60)
    product.kubectl("rollout", "status", "deployment/velda-apiserver", f"-n={NAMESPACE}", "--timeout=240s")
    product.kubectl("delete", "agentpool", "watched", f"-n={namespace}")
    out, error = await asyncio.wait_for(watching.communicate(), timeout=60)
    assert (watching.returncode, out) == (1, b"")
    assert f'there is no pool "{namespace}/watched"' in error.decode()


def test_pools_that_the_machine_is_too_small_for_run_on_the_fake_nodes(product: Product) -> None:
    product.wait("cpu-pool", namespace="default", idleReplicas=3, timeout=90)
    product.wait("gpu-pool", namespace="default", idleReplicas=1, timeout=90)
    nodes = {pod["spec"]["nodeName"] for pod in product.pods("gpu-pool", namespace="default")}
    assert all(node.startswith("gpu-") for node in nodes)


async def test_a_drained_node_whose_kubelet_hangs_keeps_its_sessions_and_is_replaced(
    product: Product, node_stage: NodeStage
) -> None:
    """What is to go stays, with its session, until kubelet does its work; others come elsewhere, and never too many."""
    namespace = product.namespace()

    def pods() -> dict[str, str]:
        """Those that are not going, and their nodes."""
        found = product.pods("leaving", namespace=namespace)
        return {
            pod["metadata"]["name"]: pod["spec"].get("nodeName", "")
            for pod in found
            if "deletionTimestamp" not in pod["metadata"]
        }

    product.apply(pool("leaving", minIdle=1, maxIdle=1, maxReplicas=4), namespace=namespace)
    product.wait("leaving", namespace=namespace, idleReplicas=1, timeout=120)
    async with Sessions(product.broker, token=product.user("bea", namespace=namespace)) as sessions:
        session = await sessions.run(f"{namespace}/leaving", timeout=60)
        await asyncio.to_thread(product.wait, "leaving", namespace=namespace, runningReplicas=1, idleReplicas=1)
        before = pods()
        assert set(before.values()) == {node_stage.node}
        with node_stage.kubelet_hangs():
            drain = ("drain", node_stage.node, "--pod-selector=velda.io/pool=leaving", "--delete-emptydir-data")
            product.kubectl(*drain, "--timeout=1s", check=False)  # it would wait for what kubelet does not do
            await asyncio.to_thread(product.wait, "leaving", namespace=namespace, idleReplicas=1, timeout=120)
            assert session.session_id in {each.session_id for each in await sessions.list()}
            after = pods()
            assert not set(after) & set(before)
            assert all(node.startswith("cpu") for node in after.values())
        product.kubectl("uncordon", node_stage.node)
    gone = [f"pod/{name}" for name in before]
    product.kubectl("wait", *gone, "--for=delete", f"--namespace={namespace}", "--timeout=120s")
    product.wait("leaving", namespace=namespace, idleReplicas=1, runningReplicas=0, unknownReplicas=0, timeout=60)


@pytest.mark.parametrize("authentication", ["token", "mtls"])
def test_agents_prove_themselves_by_what_kubelet_and_init_container_give_them(
    product: Product, authentication: str
) -> None:
    product.kubectl("delete", "agentpools", "--all", "--all-namespaces", "--timeout=240s")
    old = product.kubectl("get", "pods", "--output=name", f"--namespace={NAMESPACE}").stdout.split()
    values = ("--reuse-values", f"--set=agents.authentication={authentication}", "--wait", "--timeout=240s")
    product.stage.helm("upgrade", "velda", "chart", f"--namespace={NAMESPACE}", *values)
    # The replica of before still leads while it stops, and makes agents as it was told to.
    product.kubectl("wait", *old, "--for=delete", f"--namespace={NAMESPACE}", "--timeout=240s")
    namespace = product.namespace()
    pool = yaml.safe_load((EXAMPLES / "shell.yaml").read_text())
    pool["metadata"] = {"name": "prover"}
    spec = pool["spec"]["template"]["spec"]
    spec["automountServiceAccountToken"] = False
    del spec["volumes"], spec["containers"][0]["volumeMounts"], spec["containers"][0]["args"]
    product.apply(pool, namespace=namespace)
    product.wait("prover", namespace=namespace, idleReplicas=1, timeout=120)
    (pod,) = product.pods("prover", namespace=namespace)
    said = product.kubectl("logs", pod["metadata"]["name"], "-c=agent", f"--namespace={namespace}").stdout
    assert "joined pool prover" in said
    assert [container["name"] for container in pod["spec"].get("initContainers", [])] == (
        ["velda-certificate"] if authentication == "mtls" else []
    )
    product.stage.helm("test", "velda", f"--namespace={NAMESPACE}", "--timeout=240s")


def test_uninstall_leaves_nothing(product: Product, node_stage: NodeStage) -> None:
    """With pools still there: the chart's hook ends them while the server runs."""
    product.stage.helm("uninstall", "velda", f"--namespace={NAMESPACE}", "--wait", "--timeout=150s")
    gone = (f"--namespace={NAMESPACE}", "--for=delete", "--timeout=240s")
    node_stage.kubectl("wait", "pods", "--all", *gone)
    node_stage.kubectl("wait", "lease/velda-apiserver", *gone)  # the garbage collector's
    kinds = "customresourcedefinitions,validatingwebhookconfigurations,mutatingwebhookconfigurations"
    kinds += ",clusterroles,clusterrolebindings"
    left = [item["metadata"]["name"] for item in node_stage.get(kinds)["items"]]
    assert [name for name in left if "velda" in name] == []
    own = "deployments,services,configmaps,secrets,leases,serviceaccounts,roles,rolebindings,jobs,pods"
    expected = {
        NAMESPACE: ["default", "kube-root-ca.crt"],
        "default": ["ada", "ada", "default", "kube-root-ca.crt", "kubernetes", "velda-config"],
    }
    for namespace, names in expected.items():
        found = [item["metadata"]["name"] for item in node_stage.get(own, f"--namespace={namespace}")["items"]]
        assert sorted(found) == names
