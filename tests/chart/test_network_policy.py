"""Which connections the chart's NetworkPolicies let through, as Kubernetes reads them.

The control planes of the tests have no network that enforces them: what they mean is worked out here, that they are
valid is seen by the real API server in test_server.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.chart.support import Manifest, pick, render

NAME = "velda-apiserver"
HTTPS, CLIENTS, GRPC, DNS, API = 8443, 8444, 50051, 53, 6443
HOST = None
"""A peer that is no pod."""
Labels = Mapping[str, str]


class Pod:
    def __init__(self, namespace: str, **labels: str) -> None:
        self.namespace = namespace
        self.labels = {f"app.kubernetes.io/{key}": value for key, value in labels.items()}


SERVER = Pod("velda", name=NAME, instance="velda", component="server")
SELFTEST = Pod("velda", name=NAME, instance="velda", component="selftest")
AGENT, STRANGER = Pod("ml"), Pod("elsewhere")
WITH = ("networkPolicy.enabled=true", "networkPolicy.clientNamespaces={ml}")


def policies(*values: str) -> list[Manifest]:
    return [item for item in render(*values) if item["kind"] == "NetworkPolicy"]


def allows(
    policies: Sequence[Manifest], pod: Pod, way: str, peer: Pod | None, port: int, *, protocol: str = "TCP"
) -> bool:
    """Whether a connection passes: all of them when no policy selects the pod, else those that one of them names."""
    mine = [policy["spec"] for policy in policies if _selects(policy["spec"]["podSelector"], pod.labels)]
    mine = [spec for spec in mine if way in spec["policyTypes"]]
    rules = [rule for spec in mine for rule in spec.get(way.lower()) or ()]
    return not mine or any(_fits(rule, way, peer, port, protocol) for rule in rules)


def _fits(rule: Mapping[str, Any], way: str, peer: Pod | None, port: int, protocol: str) -> bool:
    peers = rule.get("from" if way == "Ingress" else "to")
    ports = rule.get("ports")
    return (not ports or {"port": port, "protocol": protocol} in ports) and (
        not peers or (peer is not None and any(_is_peer(one, peer) for one in peers))
    )


def _is_peer(one: Mapping[str, Any], peer: Pod) -> bool:
    namespace = {"kubernetes.io/metadata.name": peer.namespace}
    here = _selects(one["namespaceSelector"], namespace) if "namespaceSelector" in one else peer.namespace == "velda"
    return here and _selects(one.get("podSelector", {}), peer.labels)


def _selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", ())
    )


def test_there_is_none_unless_it_is_asked_for() -> None:
    assert policies() == []


def test_the_ports_are_those_that_the_server_listens_on() -> None:
    (server,) = pick(render(), "Deployment", NAME)["spec"]["template"]["spec"]["containers"]
    listened = {port["containerPort"] for port in server["ports"]}
    ours = policies(WITH[0])
    assert {port for port in range(1, 65536) if allows(ours, SERVER, "Ingress", HOST, port)} == listened


@pytest.mark.parametrize(
    ("peer", "port", "passes"),
    [
        (HOST, HTTPS, True),
        (STRANGER, HTTPS, True),
        (AGENT, GRPC, True),
        (AGENT, CLIENTS, True),
        (SELFTEST, GRPC, True),
        (STRANGER, GRPC, False),
        (STRANGER, CLIENTS, False),
        (HOST, GRPC, False),
        (SERVER, GRPC, False),
        (AGENT, 22, False),
    ],
)
def test_who_reaches_the_server(peer: Pod | None, port: int, passes: bool) -> None:
    assert allows(policies(*WITH), SERVER, "Ingress", peer, port) == passes


@pytest.mark.parametrize("pod", [SERVER, SELFTEST, Pod("velda", name=NAME, instance="velda", component="uninstall")])
def test_whom_the_pods_of_the_release_reach(pod: Pod) -> None:
    ours = policies(*WITH)
    assert allows(ours, pod, "Egress", HOST, API)
    assert allows(ours, pod, "Egress", HOST, DNS, protocol="UDP")
    assert not allows(ours, pod, "Egress", HOST, 80)
    assert not allows(ours, pod, "Egress", AGENT, GRPC)
    assert allows(ours, pod, "Egress", SERVER, GRPC) == (pod is not SERVER)


def test_other_releases_and_pods_are_left_alone() -> None:
    for pod in (AGENT, Pod("velda", name=NAME, instance="other", component="server"), Pod("velda", name="x")):
        assert allows(policies(*WITH), pod, "Ingress", STRANGER, 1)


def test_the_api_server_s_ports_are_a_value() -> None:
    ours = policies(WITH[0], "networkPolicy.apiServerPorts={16443}")
    assert allows(ours, SERVER, "Egress", HOST, 16443)
    assert not allows(ours, SERVER, "Egress", HOST, 443)
