"""kwok: nodes without a kubelet, whose pods are Running as soon as they are scheduled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support.process import Children, free_port, output_of
from tests.support.tools import tool

HERE = Path(__file__).parent
NODE_LABEL = "stage.velda.io/kwok"
"""Nodes that kwok manages; a real node in the same cluster does not carry it."""


def render_stages(unmanaged: dict[str, str], own_deletion: str | None) -> str:
    """kwok's rules; pods whose label is in ``unmanaged`` stay as they are, and those labelled ``own_deletion`` are
    deleted by whoever runs them."""
    stages: list[dict[str, Any]] = list(yaml.safe_load_all((HERE / "stages.yaml").read_text()))
    for stage in stages:
        if stage["spec"]["resourceRef"]["kind"] != "Pod":
            continue
        expressions = stage["spec"]["selector"]["matchExpressions"]
        for label, value in unmanaged.items():
            expressions.append({"key": f'.metadata.labels["{label}"]', "operator": "NotIn", "values": [value]})
        if own_deletion is not None and stage["spec"]["next"].get("delete"):
            expressions.append({"key": f'.metadata.labels["{own_deletion}"]', "operator": "DoesNotExist"})
    return yaml.safe_dump_all(stages)


async def start(
    children: Children,
    directory: Path,
    *,
    kubeconfig: Path,
    cidr: str,
    unmanaged: dict[str, str] | None = None,
    own_deletion: str | None = None,
    node_port: int | None = None,
) -> None:
    """Start kwok and add the nodes of nodes.yaml; on ``node_port`` of 127.0.0.1 somebody answers for their kubelets."""
    stages = directory / "kwok-stages.yaml"
    stages.write_text(render_stages(unmanaged or {}, own_deletion))
    await children.start(
        "kwok",
        tool("kwok"),
        f"--config={stages}",
        f"--kubeconfig={kubeconfig}",
        f"--manage-nodes-with-label-selector={NODE_LABEL}",
        f"--cidr={cidr}",
        *(() if node_port is None else ("--node-ip=127.0.0.1", f"--node-port={node_port}")),
        f"--server-address=127.0.0.1:{free_port()}",
    )
    kubectl = (tool("kubectl"), f"--kubeconfig={kubeconfig}")
    await output_of(*kubectl, "apply", "--filename", HERE / "nodes.yaml")
    await output_of(*kubectl, "wait", "node", "--for=condition=Ready", f"--selector={NODE_LABEL}", "--timeout=60s")
