"""The node stage runs containers as any cluster does, from images under the names that the documentation uses."""

from __future__ import annotations

import pytest

from tests.support.cluster import NodeStage

pytestmark = pytest.mark.node


def test_an_image_by_its_public_name_runs_unprivileged_and_finds_services_by_name(node_stage: NodeStage) -> None:
    namespace = f"--namespace={node_stage.namespace()}"
    code = "import os, socket; print(os.getuid(), socket.gethostbyname('kubernetes.default.svc.cluster.local'))"
    run = ("run", "once", "--image=veldaio/agent:latest", "--restart=Never", namespace)
    node_stage.kubectl(*run, "--command", "--", "python", "-c", code)
    node_stage.kubectl("wait", "pod/once", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", namespace)
    assert node_stage.kubectl("logs", "once", namespace).stdout.split() == ["65532", "10.96.0.1"]
    assert node_stage.get("pod", "once", namespace)["spec"]["nodeName"] == node_stage.node


def test_what_is_too_large_for_the_machine_runs_on_a_kwok_node(node_stage: NodeStage) -> None:
    namespace = f"--namespace={node_stage.namespace()}"
    overrides = '{"spec": {"containers": [{"name": "big", "image": "x", "resources": {"requests": {"cpu": "400"}}}]}}'
    node_stage.kubectl("run", "big", "--image=x", f"--overrides={overrides}", namespace)
    node_stage.kubectl("wait", "pod/big", "--for=condition=Ready", "--timeout=60s", namespace)
    assert node_stage.get("pod", "big", namespace)["spec"]["nodeName"].startswith("cpu-")
