"""Worker pods of the fleet stage have agents that dial from the pod's address and end as a container's would."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Fleet
from tests.support.workers import FATE

MANIFEST = Path(__file__).with_name("workers.yaml")
_DEADLINE = 30.0


class Scene:
    """A namespace with the stand-in broker."""

    def __init__(self, fleet: Fleet, namespace: str) -> None:
        self.fleet = fleet
        self.namespace = namespace

    def worker(self, fate: str = "") -> str:
        name = f"worker-{uuid.uuid4().hex[:8]}"
        container = {
            "name": "agent",
            "image": "veldaio/agent:latest",
            "args": ["--pool=shell"],
            "volumeMounts": [{"name": "config", "mountPath": "/run/velda"}],
        }
        volumes = [{"name": "config", "configMap": {"name": "velda-config"}}]
        metadata = {"name": name, "labels": {"velda.io/pool": "shell"}, "annotations": {FATE: fate}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        pod["spec"] = {"containers": [container], "volumes": volumes}
        self.fleet.kubectl("create", "--filename=-", f"--namespace={self.namespace}", input=json.dumps(pod))
        return name

    def said(self, agent: str) -> dict[str, Any]:
        lines = [json.loads(line) for line in self.fleet.log("broker").splitlines() if line.startswith("{")]
        return {line["what"]: line for line in lines if line["agent"] == agent}

    def wait(self, agent: str, what: str) -> dict[str, Any]:
        """The broker has no event for us but its log."""
        deadline = time.monotonic() + _DEADLINE
        while what not in (said := self.said(agent)):
            assert time.monotonic() < deadline, f"{agent} has not {what}: {said}"
            time.sleep(0.05)
        found: dict[str, Any] = said[what]
        return found

    def delete(self, pod: str) -> None:
        self.fleet.kubectl("delete", "pod", pod, f"--namespace={self.namespace}", "--timeout=30s")


@pytest.fixture(scope="module")
def scene(fleet: Fleet) -> Scene:
    namespace = fleet.namespace()
    manifest = MANIFEST.read_text().replace("broker:50051", f"broker.{namespace}.svc.cluster.local:50051")
    fleet.kubectl("apply", "--filename=-", f"--namespace={namespace}", input=manifest)
    fleet.kubectl("wait", "pod/broker", "--for=condition=Ready", f"--namespace={namespace}", "--timeout=30s")
    return Scene(fleet, namespace)


def test_an_agent_joins_from_its_pods_address_and_takes_leave_when_the_pod_is_deleted(scene: Scene) -> None:
    worker = scene.worker()
    joined = scene.wait(worker, "joined")
    pod = scene.fleet.get("pod", worker, f"--namespace={scene.namespace}")
    assert joined["pool"] == "shell"
    assert joined["peer"].split(":")[1] == pod["status"]["podIP"]
    scene.delete(worker)
    assert scene.said(worker).keys() == {"joined", "left"}


def test_an_agent_that_dies_says_nothing_and_its_pod_stays_until_it_is_deleted(scene: Scene) -> None:
    worker = scene.worker()
    scene.wait(worker, "joined")
    scene.fleet.decide(worker, "dead", namespace=scene.namespace)
    scene.wait(worker, "lost")
    assert scene.fleet.get("pod", worker, f"--namespace={scene.namespace}")["status"]["phase"] == "Running"
    scene.delete(worker)


def test_a_silent_agent_keeps_its_connection_and_cannot_take_leave(scene: Scene) -> None:
    worker = scene.worker()
    scene.wait(worker, "joined")
    scene.fleet.decide(worker, "silent", namespace=scene.namespace)
    scene.fleet.kubectl("delete", "pod", worker, f"--namespace={scene.namespace}", "--grace-period=1", "--timeout=30s")
    scene.wait(worker, "lost")
    assert "left" not in scene.said(worker)


def test_an_absent_agent_starts_when_it_is_let(scene: Scene) -> None:
    worker = scene.worker("absent")
    other = scene.worker()
    scene.wait(other, "joined")
    assert scene.said(worker) == {}
    scene.fleet.decide(worker, "", namespace=scene.namespace)
    scene.wait(worker, "joined")
