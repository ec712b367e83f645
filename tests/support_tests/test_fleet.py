"""A pod of the fleet stage sees what a container in a cluster sees, and the stage sees to it as kubelet does."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Fleet

ECHO = Path(__file__).with_name("echo.yaml")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("stage")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(fleet: Fleet, namespace: str) -> dict[str, Any]:
    connection = _UnixConnection(fleet.address("echo", 443, namespace=namespace).removeprefix("unix:"))
    try:
        connection.request("GET", "/")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


@pytest.fixture(scope="module")
def echo(fleet: Fleet) -> Iterator[str]:
    """A namespace in which two replicas of the stand-in are ready."""
    namespace = fleet.namespace()
    fleet.kubectl("apply", f"--filename={ECHO}", f"--namespace={namespace}")
    fleet.kubectl("rollout", "status", "deployment/echo", f"--namespace={namespace}", "--timeout=60s")
    yield namespace
    fleet.kubectl("delete", "namespace", namespace, "--wait=false")


def pods(fleet: Fleet, namespace: str) -> list[Any]:
    found: list[Any] = fleet.get("pods", "--selector=app=echo", f"--namespace={namespace}")["items"]
    return found


def test_files_environment_name_and_service_account_are_those_of_the_pod(fleet: Fleet, echo: str) -> None:
    answer = ask(fleet, echo)
    service = fleet.get("service", "echo", f"--namespace={echo}")
    assert answer["host"] in {pod["metadata"]["name"] for pod in pods(fleet, echo)}
    assert answer["user"] == f"system:serviceaccount:{echo}:default"
    assert answer["file"] == "hello"
    assert answer["env"] == f"{answer['host']}/{answer['host']}+"
    assert answer["resolved"] == service["spec"]["clusterIP"]


def test_two_replicas_listen_on_one_port_and_share_the_service(fleet: Fleet, echo: str) -> None:
    hosts: set[str] = set()
    while len(hosts) < 2:
        hosts.add(ask(fleet, echo)["host"])


def test_nothing_of_the_pod_is_mounted_or_left_on_the_machine(echo: str) -> None:
    assert not Path("/etc/echo").exists()


def test_kubectl_logs_shows_what_it_printed(fleet: Fleet, echo: str) -> None:
    ask(fleet, echo)
    pod = pods(fleet, echo)[0]["metadata"]["name"]
    printed = fleet.kubectl("logs", pod, "--tail=1", f"--namespace={echo}").stdout
    assert printed.count("\n") == 1
    assert '"GET / HTTP/1.1" 200' in printed


def test_a_killed_process_is_started_again_under_the_same_pod(fleet: Fleet, echo: str) -> None:
    pod = pods(fleet, echo)[0]["metadata"]["name"]
    (process,) = fleet.processes(pod)
    os.kill(process, signal.SIGKILL)
    path = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1"
    fleet.kubectl("wait", f"pod/{pod}", path, f"--namespace={echo}", "--timeout=30s")
    fleet.kubectl("wait", f"pod/{pod}", "--for=condition=Ready", f"--namespace={echo}", "--timeout=30s")


def test_a_deleted_pod_gets_sigterm_and_its_object_goes_when_the_process_is_gone(fleet: Fleet, echo: str) -> None:
    pod = pods(fleet, echo)[0]["metadata"]["name"]
    fleet.kubectl("delete", "pod", pod, f"--namespace={echo}", "--timeout=30s")
    assert fleet.processes(pod) == []
    fleet.kubectl("rollout", "status", "deployment/echo", f"--namespace={echo}", "--timeout=60s")


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
def test_a_pod_that_is_not_restarted_ends_as_its_command_does(fleet: Fleet, code: int, phase: str) -> None:
    namespace = fleet.namespace()
    label = "--labels=app.kubernetes.io/name=velda-apiserver"
    command = ("--command", "--", "python", "-c", f"raise SystemExit({code})")
    fleet.kubectl("run", "once", "--image=x", label, "--restart=Never", f"--namespace={namespace}", *command)
    done = f"--for=jsonpath={{.status.phase}}={phase}"
    fleet.kubectl("wait", "pod/once", done, f"--namespace={namespace}", "--timeout=30s")
