"""The product as containers on a real node: installed by helm, joined by DNS name, gone without a trace."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.product import EXAMPLES, NAMESPACE, Product, Sessions
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
    done = product.stage.helm("test", "velda", f"--namespace={NAMESPACE}", "--timeout=90s")
    assert "Succeeded" in done.stdout


def test_shell_agents_are_containers_that_joined_by_name(product: Product, node_stage: NodeStage) -> None:
    (pod,) = product.pods("shell", namespace="default")
    assert pod["spec"]["nodeName"] == node_stage.node
    said = product.kubectl("logs", pod["metadata"]["name"], "--namespace=default").stdout
    assert "joined pool shell" in said
    config = product.kubectl("exec", pod["metadata"]["name"], "-n=default", "--", "cat", "/run/velda/velda.yaml").stdout
    assert "velda-apiserver.default.svc.cluster.local:50051" in config


async def test_a_session_runs_inside_of_its_container(product: Product) -> None:
    async with Sessions(product.broker) as sessions:
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


def test_pools_that_the_machine_is_too_small_for_run_on_the_fake_nodes(product: Product) -> None:
    product.wait("cpu-pool", namespace="default", idleReplicas=3, timeout=90)
    product.wait("gpu-pool", namespace="default", idleReplicas=1, timeout=90)
    nodes = {pod["spec"]["nodeName"] for pod in product.pods("gpu-pool", namespace="default")}
    assert all(node.startswith("gpu-") for node in nodes)


def test_uninstall_leaves_nothing(product: Product, node_stage: NodeStage) -> None:
    """With pools still there: the chart's hook ends them while the server runs."""
    product.stage.helm("uninstall", "velda", f"--namespace={NAMESPACE}", "--wait", "--timeout=150s")
    node_stage.kubectl("wait", "pods", "--all", f"--namespace={NAMESPACE}", "--for=delete", "--timeout=60s")
    kinds = "customresourcedefinitions,validatingwebhookconfigurations,mutatingwebhookconfigurations"
    kinds += ",clusterroles,clusterrolebindings"
    left = [item["metadata"]["name"] for item in node_stage.get(kinds)["items"]]
    assert [name for name in left if "velda" in name] == []
    own = "deployments,services,configmaps,secrets,leases,serviceaccounts,roles,rolebindings,jobs,pods"
    expected = {
        NAMESPACE: ["default", "kube-root-ca.crt"],
        "default": ["default", "kube-root-ca.crt", "kubernetes", "velda-config"],
    }
    for namespace, names in expected.items():
        found = [item["metadata"]["name"] for item in node_stage.get(own, f"--namespace={namespace}")["items"]]
        assert sorted(found) == names
