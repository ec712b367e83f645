"""What the rendered manifests say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.agent.config import load as load_agent_config
from app.settings import Settings, parse
from crd import rbac
from tests.chart.support import NAMESPACE, VARIANTS, Manifest, is_hook, pick, render, template
from tests.support.running import CHECKOUT

NAME = "velda-apiserver"


@pytest.fixture(scope="module")
def defaults() -> list[Manifest]:
    return render()


def settings_of(manifests: list[Manifest], name: str = NAME) -> Settings:
    return parse(pick(manifests, "ConfigMap", f"{name}-config")["data"]["velda-config.yaml"], "velda-config.yaml")


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_configuration_is_one_that_the_server_takes(values: tuple[str, ...]) -> None:
    name = "scaler" if "fullnameOverride=scaler" in values else NAME
    settings = settings_of(render(*values), name)
    assert settings.webhook.service == f"{name}-webhook"
    assert settings.leader_election.lease == settings.webhook.validating_configuration == name


def test_the_configuration_follows_the_values() -> None:
    settings = settings_of(render("namespaces={a,b}", "agents.authentication=none", "log.level=debug"))
    assert settings.kubernetes.watched == ("a", "b")
    assert settings.agents.authentication == "none"
    assert settings.log.level == "debug"


def test_every_file_that_the_configuration_names_is_mounted(defaults: list[Manifest]) -> None:
    path = Path(settings_of(defaults).agents.velda_yaml or "")
    pod = pick(defaults, "Deployment", NAME)["spec"]["template"]["spec"]
    (mount,) = (item for item in pod["containers"][0]["volumeMounts"] if item["mountPath"] == str(path.parent))
    (volume,) = (item for item in pod["volumes"] if item["name"] == mount["name"])
    names = [source["configMap"]["name"] for source in volume["projected"]["sources"]]
    files = [key for name in names for key in pick(defaults, "ConfigMap", name)["data"]]
    assert sorted(files) == ["velda-config.yaml", path.name]


def test_agents_are_told_the_brokers_address(defaults: list[Manifest], tmp_path: Path) -> None:
    (file := tmp_path / "velda.yaml").write_text(pick(defaults, "ConfigMap", f"{NAME}-agents")["data"]["velda.yaml"])
    assert load_agent_config(file).broker_address == f"{NAME}.{NAMESPACE}.svc.cluster.local:50051"


def test_velda_yaml_takes_what_else_agents_need(tmp_path: Path) -> None:
    manifests = render("agents.config.daemon_config.max_sessions=4", "clusterDomain=corp.example")
    (file := tmp_path / "velda.yaml").write_text(pick(manifests, "ConfigMap", f"{NAME}-agents")["data"]["velda.yaml"])
    config = load_agent_config(file)
    assert (config.max_sessions, config.broker_address) == (4, f"{NAME}.{NAMESPACE}.svc.corp.example:50051")


def test_the_documentations_address_leads_to_the_broker(defaults: list[Manifest]) -> None:
    alias = pick(defaults, "Service", NAME, "default")
    assert alias["spec"]["externalName"] == f"{NAME}.{NAMESPACE}.svc.cluster.local"
    assert not aliases(render("broker.aliasNamespaces={velda}")), "the Service itself has the name"
    assert aliases(render("broker.aliasNamespaces={velda}", release="b")) == ["velda"]
    assert not aliases(render("broker.aliasNamespaces=null"))


def aliases(manifests: list[Manifest]) -> list[str]:
    """Namespaces with an alias of the broker's Service."""
    services = [item for item in manifests if item["kind"] == "Service" and "externalName" in item["spec"]]
    assert {item["metadata"]["name"] for item in services} <= {NAME}
    return [item["metadata"]["namespace"] for item in services]


def test_only_the_leader_is_behind_the_brokers_service(defaults: list[Manifest]) -> None:
    labels = pick(defaults, "Deployment", NAME)["spec"]["template"]["metadata"]["labels"]
    selector = pick(defaults, "Service", NAME, NAMESPACE)["spec"]["selector"]
    assert selector.pop("velda.io/role") == "leader"
    assert "velda.io/role" not in labels
    assert selector.items() <= labels.items()


def test_no_service_selects_the_pod_of_a_hook(defaults: list[Manifest]) -> None:
    selector = pick(defaults, "Service", f"{NAME}-webhook")["spec"]["selector"]
    jobs = [item["spec"]["template"] for item in defaults if item["kind"] == "Job"]
    for pod in (*jobs, pick(defaults, "Pod", f"{NAME}-selftest")):
        assert not selector.items() <= pod["metadata"]["labels"].items()


def test_a_change_of_the_configuration_rolls_the_deployment(defaults: list[Manifest]) -> None:
    def checksum(manifests: list[Manifest]) -> Any:
        return pick(manifests, "Deployment", NAME)["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum(defaults) == checksum(render("replicas=2"))
    assert checksum(defaults) != checksum(render("log.level=debug"))
    assert checksum(defaults) != checksum(render("agents.config.daemon_config.max_sessions=4"))


def test_two_replicas_are_spread_and_not_drained_together(defaults: list[Manifest]) -> None:
    manifests = render("replicas=2")
    budget = pick(manifests, "PodDisruptionBudget", NAME)["spec"]
    pod = pick(manifests, "Deployment", NAME)["spec"]["template"]
    assert budget["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"
    assert not [item for item in defaults if item["kind"] == "PodDisruptionBudget"]


def test_pods_run_without_any_privilege(defaults: list[Manifest]) -> None:
    specs = [item["spec"]["template"]["spec"] for item in defaults if item["kind"] in ("Deployment", "Job")]
    assert len(specs) == 3
    for spec in (*specs, pick(defaults, "Pod", f"{NAME}-selftest")["spec"]):
        container = spec["containers"][0]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "cpu" not in container["resources"]["limits"]


def test_webhooks_can_never_be_in_the_way(defaults: list[Manifest]) -> None:
    pools = pick(defaults, "ValidatingWebhookConfiguration", NAME)["webhooks"]
    pods = pick(defaults, "MutatingWebhookConfiguration", NAME)["webhooks"]
    assert [rule for hook in pools for rule in hook["rules"]] == [
        {
            "apiGroups": ["velda.io"],
            "apiVersions": ["*"],
            "resources": ["agentpools"],
            "operations": ["CREATE", "UPDATE"],
            "scope": "Namespaced",
        }
    ]
    assert [hook["objectSelector"] for hook in pods] == [
        {"matchExpressions": [{"key": "velda.io/pool", "operator": "Exists"}]}
    ]
    assert NAMESPACE in excluded(pods[0])
    for hook in (*pools, *pods):
        assert "kube-system" in excluded(hook)
        assert hook["sideEffects"] == "None"
        assert "caBundle" not in hook["clientConfig"]


def test_kube_system_is_left_alone_whatever_the_values_say() -> None:
    manifests = render("webhook.excludedNamespaces=null")
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        assert "kube-system" in excluded(pick(manifests, kind, NAME)["webhooks"][0])


def test_webhooks_look_only_where_pools_are_served() -> None:
    manifests = render("namespaces={a,b}", "webhook.mutateAgentPools=true")
    validating = pick(manifests, "ValidatingWebhookConfiguration", NAME)["webhooks"]
    mutating = pick(manifests, "MutatingWebhookConfiguration", NAME)["webhooks"]
    assert [hook["name"] for hook in mutating] == ["pods.velda.io", "agentpools.velda.io"]
    for hook in (*validating, *mutating):
        assert {
            "key": "kubernetes.io/metadata.name",
            "operator": "In",
            "values": ["a", "b"],
        } in hook["namespaceSelector"]["matchExpressions"]


def test_some_namespaces_need_no_right_in_others() -> None:
    manifests = render("namespaces={a,b}")
    everywhere = [item for item in manifests if item["kind"] == "ClusterRole"]
    granted = {resource for item in everywhere for rule in item["rules"] for resource in rule["resources"]}
    assert granted == {
        "tokenreviews",
        "subjectaccessreviews",
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
    }
    for namespace in ("a", "b"):
        assert pick(manifests, "Role", f"{NAME}-pools", namespace)["rules"]
        assert pick(manifests, "Role", f"{NAME}-uninstall", namespace)["rules"]


def test_the_server_can_neither_create_secrets_nor_read_others_secrets(defaults: list[Manifest]) -> None:
    roles = [item for item in defaults if item["kind"] in ("Role", "ClusterRole") and not is_hook(item)]
    rules = [rule for role in roles for rule in role["rules"]]
    assert [rule for rule in rules if "secrets" in rule["resources"]] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [f"{NAME}-tls"], "verbs": ["get", "update"]}
    ]
    assert not [rule for rule in rules if "*" in rule["resources"] + rule["verbs"] + rule["apiGroups"]]


def test_what_the_process_fills_is_rendered_empty(defaults: list[Manifest]) -> None:
    assert "data" not in pick(defaults, "Secret", f"{NAME}-tls")
    assert "spec" not in pick(defaults, "Lease", NAME)


def test_the_crd_is_the_generated_one(defaults: list[Manifest]) -> None:
    ours = yaml.safe_load((CHECKOUT / "crd" / "agentpools.velda.io.yaml").read_text())
    charts = pick(defaults, "CustomResourceDefinition", "agentpools.velda.io")
    assert charts["spec"] == ours["spec"]
    assert charts["metadata"].items() >= ours["metadata"].items()


def test_the_crd_can_be_kept_or_left_to_others(defaults: list[Manifest]) -> None:
    kept = pick(render("crds.keep=true"), "CustomResourceDefinition", "agentpools.velda.io")
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not [item for item in render("crds.install=false") if item["kind"] == "CustomResourceDefinition"]


def uninstall_jobs(manifests: list[Manifest]) -> dict[str, str]:
    """Which hook does what with the pools."""
    jobs = [item for item in manifests if item["kind"] == "Job"]
    return {
        job["metadata"]["annotations"]["helm.sh/hook"]: job["spec"]["template"]["spec"]["containers"][0]["args"][1]
        for job in jobs
    }


@pytest.mark.parametrize("value", ["crds.keep=true", "crds.install=false"])
def test_pools_that_stay_are_released_after_the_release_is_gone(value: str) -> None:
    assert uninstall_jobs(render(value)) == {"post-delete": "--pools=release"}


def test_pools_go_before_the_release_and_none_that_comes_later_holds_the_crd(defaults: list[Manifest]) -> None:
    assert uninstall_jobs(defaults) == {"pre-delete": "--pools=delete", "post-delete": "--pools=release"}
    account = pick(defaults, "ServiceAccount", f"{NAME}-uninstall")
    assert account["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete,post-delete"


def test_names_follow_the_release() -> None:
    assert pick(render(release="b"), "Deployment", "b-apiserver")
    assert pick(render(release=NAME), "Deployment", NAME)


def test_all_objects_carry_the_releases_labels(defaults: list[Manifest]) -> None:
    for item in defaults:
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == NAME
        assert labels["app.kubernetes.io/instance"] == "velda"


def test_the_plain_rbac_manifest_is_current() -> None:
    assert rbac.TARGET.read_text() == rbac.render(), "run make rbac"


def test_nothing_is_rendered_differently_the_next_time() -> None:
    assert template().stdout == template().stdout


def excluded(hook: dict[str, Any]) -> set[str]:
    expressions = hook["namespaceSelector"]["matchExpressions"]
    return {value for item in expressions if item["operator"] == "NotIn" for value in item["values"]}
