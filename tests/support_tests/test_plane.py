"""The control plane of the tests is a real one, and leaves nothing behind however it ends."""

from __future__ import annotations

import json

from tests.support.cluster import Cluster


def test_pods_on_kwok_nodes_run_with_loopback_addresses_of_their_own(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    for name in ("a", "b"):
        cluster.kubectl("run", name, "--image=x", f"--namespace={namespace}")
    cluster.kubectl("wait", "pod", "--all", "--for=condition=Ready", f"--namespace={namespace}", "--timeout=30s")
    pods = cluster.get("pods", f"--namespace={namespace}")["items"]
    addresses = {pod["status"]["podIP"] for pod in pods}
    assert len(addresses) == 2
    assert all(address.startswith("127.") for address in addresses)


def test_the_gpu_nodes_take_a_pod_as_the_documentation_writes_it(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    overrides = """{"spec": {"nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"},
      "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
      "containers": [{"name": "agent", "image": "x", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}}"""
    cluster.kubectl("run", "gpu", "--image=x", f"--overrides={overrides}", f"--namespace={namespace}")
    cluster.kubectl("wait", "pod/gpu", "--for=condition=Ready", f"--namespace={namespace}", "--timeout=30s")
    assert cluster.get("pod", "gpu", f"--namespace={namespace}")["spec"]["nodeName"].startswith("gpu-")


async def test_our_own_client_is_the_administrator(cluster: Cluster) -> None:
    async with cluster.client() as client:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = await client.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert json.loads(answer)["status"]["userInfo"]["username"] == "admin"
