"""The webhooks with a real API server and kubectl: what is refused, how it reads, and what passes untouched."""

from __future__ import annotations

import copy
import json
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.webhook.questions import pool as good_pool
from tests.webhook.serving import Served, registered, serving

Pool = dict[str, Any]


@pytest.fixture(scope="module")
def served(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(cluster, tmp_path_factory.mktemp("webhook")) as served, registered(cluster, served):
        yield served


@pytest.fixture
def namespace(cluster: Cluster, served: Served) -> str:
    return cluster.namespace()


def pool(namespace: str, **container: Any) -> Pool:
    value = good_pool()
    value["metadata"] = {"name": "cpu", "namespace": namespace}
    value["spec"]["template"]["spec"]["containers"][0].update(container)
    return value


def apply(cluster: Cluster, value: Pool, *options: str) -> str:
    """What kubectl says on standard error; empty when all is well."""
    done = cluster.kubectl("apply", "--filename=-", *options, input=json.dumps(value), check=False)
    assert (done.returncode == 0) == (not {"is invalid", "Error from server"} & _phrases(done.stderr)), done.stderr
    return done.stderr


def _phrases(text: str) -> set[str]:
    return {phrase for phrase in ("is invalid", "Error from server") if phrase in text}


def refused(cluster: Cluster, value: Pool, *options: str) -> str:
    said = apply(cluster, value, *options)
    assert _phrases(said), said
    return said


def test_a_good_pool_is_stored_as_it_was_written(cluster: Cluster, namespace: str) -> None:
    value = pool(namespace)
    assert apply(cluster, value) == ""
    stored = cluster.get("agentpool", "cpu", f"--namespace={namespace}")
    assert stored["spec"]["template"] == value["spec"]["template"]
    assert cluster.kubectl("diff", "--filename=-", input=json.dumps(value)).stdout == ""
    assert cluster.get("pods", f"--namespace={namespace}")["items"] == []


def test_errors_read_well_in_a_terminal(cluster: Cluster, namespace: str) -> None:
    value = pool(namespace, args=["--pool=gpu"], image="velda io/agent")
    assert refused(cluster, value) == (
        'The AgentPool "cpu" is invalid: \n'
        '* spec.template.spec.containers[0].image: Invalid value: "velda io/agent": '
        "must be an image's name, such as veldaio/agent:latest\n"
        '* spec.template.spec.containers[0].args[0]: Invalid value: "gpu": '
        "--pool names another pool, must be cpu or be left out\n"
    )


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"name": "Agent 1"}, 'spec.template.spec.containers[0].name: Invalid value: "Agent 1": '),
        ({"volumeMounts": [{"name": "x", "mountPath": "/x"}]}, "containers[0].volumeMounts[0].name: Not found"),
        (
            {"resources": {"limits": {"cpu": 1}, "requests": {"cpu": 2}}},
            "containers[0].resources.requests: Invalid value",
        ),
        ({"imagePullPolicy": "Often"}, "containers[0].imagePullPolicy: Unsupported value"),
    ],
)
def test_what_only_the_api_server_knows(cluster: Cluster, namespace: str, container: Pool, said: str) -> None:
    assert said in refused(cluster, pool(namespace, **container))


def test_a_policy_of_the_namespace(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline")
    said = refused(cluster, pool(namespace))
    assert said.startswith('The AgentPool "cpu" is invalid: spec.template: violates PodSecurity "baseline:latest": ')


def test_a_used_up_quota_is_a_warning(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "quota", "tight", "--hard=pods=0", f"--namespace={namespace}")
    cluster.kubectl("wait", "quota/tight", "--for=jsonpath={.status.hard.pods}=0", f"--namespace={namespace}")
    assert apply(cluster, pool(namespace)).startswith("Warning: no agent can be created now: exceeded quota: tight, ")


def test_a_quota_that_cannot_hold_the_pool_is_a_warning(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "quota", "small", "--hard=requests.cpu=2500m", f"--namespace={namespace}")
    cluster.kubectl("wait", "quota/small", "--for=jsonpath={.status.hard}", f"--namespace={namespace}")
    said = apply(cluster, pool(namespace))
    assert said == "Warning: ResourceQuota small has room for 2 agents (requests.cpu: 2500m), maxReplicas is 5\n"


def test_a_service_account_may_come_later(cluster: Cluster, namespace: str) -> None:
    value = pool(namespace)
    value["spec"]["template"]["spec"]["serviceAccountName"] = "later"
    assert apply(cluster, value).startswith("Warning: no agent can be created now: error looking up service account")


def test_a_field_of_the_pod_that_the_api_server_does_not_know(cluster: Cluster, namespace: str) -> None:
    said = apply(cluster, pool(namespace, securityContxt={}))
    assert said == "Warning: spec.template.spec.containers[0].securityContxt: unknown field, it has no effect\n"


def test_who_may_not_create_pods(cluster: Cluster, namespace: str) -> None:
    there, user = f"--namespace={namespace}", "--as=jane"
    cluster.kubectl(
        "create", "role", "pools", "--verb=*", "--resource=agentpools.velda.io,agentpools.velda.io/scale", there
    )
    cluster.kubectl("create", "rolebinding", "pools", "--role=pools", "--user=jane", there)
    said = refused(cluster, pool(namespace), user)
    assert said.startswith("Error from server (Forbidden): ")
    assert f'user "jane" may not create pods in namespace "{namespace}"' in said

    apply(cluster, pool(namespace))
    value = pool(namespace)
    value["spec"]["autoscaler"]["maxReplicas"] = 4
    assert "Error from server (Forbidden): " in refused(cluster, value, user)
    cluster.kubectl("label", "agentpool", "cpu", "team=ml", there, user)
    cluster.kubectl("scale", "agentpool", "cpu", "--replicas=1", there, user)
    cluster.kubectl("delete", "agentpool", "cpu", there, user)


def test_a_group_may_have_the_right(cluster: Cluster, namespace: str) -> None:
    there = f"--namespace={namespace}"
    cluster.kubectl("create", "role", "all", "--verb=*", "--resource=agentpools.velda.io,pods", there)
    cluster.kubectl("create", "rolebinding", "all", "--role=all", "--group=dev", there)
    assert apply(cluster, pool(namespace), "--as=jane", "--as-group=dev") == ""


def test_a_server_side_dry_run_stores_nothing(cluster: Cluster, namespace: str) -> None:
    assert apply(cluster, pool(namespace), "--dry-run=server") == ""
    refused(cluster, pool(namespace, args=["--pool=gpu"]), "--dry-run=server")
    assert cluster.get("agentpools", f"--namespace={namespace}")["items"] == []


def test_a_labelled_pod_is_injected(cluster: Cluster, namespace: str) -> None:
    metadata = {"name": "mine", "namespace": namespace, "labels": {"velda.io/pool": "cpu"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "a", "image": "x"}]},
    }
    other = copy.deepcopy(pod)
    other["metadata"] = {"name": "other", "namespace": namespace}
    cluster.kubectl(
        "create", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod, other]})
    )
    container = cluster.get("pod", "mine", f"--namespace={namespace}")["spec"]["containers"][0]
    assert container["args"] == ["--pool=cpu"]
    assert {"name": "velda-config", "mountPath": "/run/velda", "readOnly": True} in container["volumeMounts"]
    assert "args" not in cluster.get("pod", "other", f"--namespace={namespace}")["spec"]["containers"][0]


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    trust = ssl.create_default_context(cafile=served.authority)
    with httpx.Client(base_url=served.url, verify=trust, trust_env=False) as client:
        yield client


def test_metrics_are_read_by_token_and_rbac(cluster: Cluster, namespace: str, http: httpx.Client) -> None:
    account = f"{namespace}:default"
    token = cluster.kubectl("create", "token", "default", f"--namespace={namespace}").stdout.strip()
    header = {"Authorization": f"Bearer {token}"}
    assert http.get("/metrics", headers={"Authorization": "Bearer nonsense"}).status_code == 401
    denied = http.get("/metrics", headers=header)
    assert (denied.status_code, denied.text) == (403, f'user "system:serviceaccount:{account}" may not get /metrics\n')
    cluster.kubectl("create", "clusterrole", namespace, "--verb=get", "--non-resource-url=/metrics")
    cluster.kubectl(
        "create", "clusterrolebinding", namespace, f"--clusterrole={namespace}", f"--serviceaccount={account}"
    )
    answer = http.get("/metrics", headers=header)
    assert answer.status_code == 200
    assert "# TYPE velda_admission_total counter" in answer.text


def test_a_body_over_the_limit_is_413_on_the_wire(http: httpx.Client) -> None:
    assert http.post("/validate", content=b"x" * (3 * 1024 * 1024 + 1)).status_code == 413
    assert http.post("/validate", content=(b"x" * 65536 for _ in range(49))).status_code == 413
    assert http.post("/validate", content=b"{}").status_code == 400
