"""What the rendered manifests say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.agent.config import load as load_agent_config
from app.core.proofs import CERTIFICATE_FILE, KEY_FILE, CertificateProof, TokenProof
from app.kube.role import DROP_TIMEOUT
from app.service import BROKER_GRACE, HTTP_GRACE
from app.settings import LeaderElection, Limits, Settings, parse
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
    values = ("namespaces={a,b}", "agents.authentication=none", "clients.authentication=none", "metrics=open")
    settings = settings_of(render(*values, "log.level=debug"))
    assert settings.kubernetes.watched == ("a", "b")
    assert settings.agents.authentication == settings.clients.authentication == "none"
    assert settings.server.metrics == "open"
    assert settings.log.level == "debug"
    assert settings.limits == Limits()
    assert settings_of(render("limits.messageBytes=104857600")).limits == Limits(message_bytes=100 << 20)


@pytest.mark.parametrize(("authentication", "directory"), [("token", "agent"), ("mtls", "certificate")])
def test_pods_that_lack_a_proof_are_sent_to_the_webhook(authentication: str, directory: str) -> None:
    hooks = pick(render(f"agents.authentication={authentication}"), "MutatingWebhookConfiguration", NAME)["webhooks"]
    (condition,) = hooks[0]["matchConditions"]
    assert f"velda[.]io/+{directory}/*$" in condition["expression"]
    assert "velda[.]io" not in str(pick(render(), "MutatingWebhookConfiguration", NAME))


def test_agents_prove_themselves_as_the_values_say(tmp_path: Path) -> None:
    token = settings_of(render("agents.authentication=token", "agents.tokenAudience=a", "agents.tokenSeconds=700"))
    assert token.agents.proof == TokenProof(audience="a", seconds=700)
    assert not token.broker_tls
    manifests = render("agents.authentication=mtls", "image.tag=edge", "agents.brokerAddress=broker.example.com:443")
    mtls = settings_of(manifests)
    url = f"https://{NAME}-webhook.{NAMESPACE}.svc/agents/v1/certificate"
    proof = CertificateProof(token=TokenProof("velda-agents", 3600), image="veldaio/velda-apiserver:edge", url=url)
    assert mtls.agents.proof == proof
    assert f"{mtls.webhook.service}.{NAMESPACE}.svc" in url
    (file := tmp_path / "velda.yaml").write_text(pick(manifests, "ConfigMap", f"{NAME}-agents")["data"]["velda.yaml"])
    config = load_agent_config(file)
    assert (config.client_certificate, config.client_key) == (CERTIFICATE_FILE, KEY_FILE)


def test_the_broker_is_served_by_tls_under_every_name_that_it_has(tmp_path: Path) -> None:
    manifests = render(
        "broker.tls=true", "broker.aliasNamespaces={team}", "agents.brokerAddress=broker.example.com:443"
    )
    broker = settings_of(manifests).broker
    assert broker.tls
    names = {f"{NAME}.{NAMESPACE}.svc.cluster.local", "velda-apiserver.team.svc", "broker.example.com"}
    assert names < {*broker.names}
    (file := tmp_path / "velda.yaml").write_text(pick(manifests, "ConfigMap", f"{NAME}-agents")["data"]["velda.yaml"])
    assert load_agent_config(file).speaks_tls
    ports = pick(manifests, "Service", NAME, NAMESPACE)["spec"]["ports"]
    assert [port["appProtocol"] for port in ports if port["name"] == "grpc"] == ["https"]
    assert "--broker-security=tls" in pick(manifests, "Pod", f"{NAME}-selftest")["spec"]["containers"][0]["args"]


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


def test_rest_follows_the_leader_on_the_port_that_takes_clients_certificates(defaults: list[Manifest]) -> None:
    ports = {port["name"]: port for port in pick(defaults, "Service", NAME, NAMESPACE)["spec"]["ports"]}
    (container,) = pick(defaults, "Deployment", NAME)["spec"]["template"]["spec"]["containers"]
    numbers = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert (ports["https"]["port"], ports["https"]["appProtocol"]) == (443, "https")
    settings = settings_of(defaults)
    assert numbers[ports["https"]["targetPort"]] == settings.server.client_port
    assert f"{NAME}.{NAMESPACE}.svc" in settings.broker.names, "the certificate is for REST too"


def test_no_service_selects_the_pod_of_a_hook(defaults: list[Manifest]) -> None:
    selector = pick(defaults, "Service", f"{NAME}-webhook")["spec"]["selector"]
    jobs = [item["spec"]["template"] for item in defaults if item["kind"] == "Job"]
    for pod in (*jobs, pick(defaults, "Pod", f"{NAME}-selftest")):
        assert not selector.items() <= pod["metadata"]["labels"].items()


def test_a_change_of_the_configuration_rolls_the_deployment(defaults: list[Manifest]) -> None:
    def checksum(manifests: list[Manifest]) -> Any:
        return pick(manifests, "Deployment", NAME)["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum(defaults) == checksum(render("replicas=3"))
    assert checksum(defaults) != checksum(render("log.format=console"))
    assert checksum(defaults) == checksum(render("log.level=debug", "log.levels.app\\.kube=error"))
    assert checksum(defaults) != checksum(render("agents.config.daemon_config.max_sessions=4"))


def test_two_replicas_are_apart_where_possible_and_not_drained_together(defaults: list[Manifest]) -> None:
    budget = pick(defaults, "PodDisruptionBudget", NAME)["spec"]
    deployment = pick(defaults, "Deployment", NAME)["spec"]
    pod = deployment["template"]
    assert deployment["replicas"] == 2
    assert (budget["maxUnavailable"], budget["selector"]) == (1, deployment["selector"])
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "replicas that do not work are in no drain's way"
    (apart,) = pod["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    (spread,) = pod["spec"]["topologySpreadConstraints"]
    assert apart["podAffinityTerm"] == {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": deployment["selector"],
    }
    assert (spread["topologyKey"], spread["labelSelector"]) == (
        "topology.kubernetes.io/zone",
        deployment["selector"],
    )
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"


def test_one_replica_may_be_drained_and_needs_no_room_beside_others() -> None:
    alone = render("replicas=1")
    assert not [item for item in alone if item["kind"] == "PodDisruptionBudget"]
    assert {"affinity", "topologySpreadConstraints"}.isdisjoint(
        pick(alone, "Deployment", NAME)["spec"]["template"]["spec"]
    )


def test_a_place_of_ones_own_choice_replaces_ours() -> None:
    spec = pick(render(*VARIANTS["everything"]), "Deployment", NAME)["spec"]["template"]["spec"]
    assert set(spec["affinity"]) == {"nodeAffinity"}
    assert spec["priorityClassName"] == "system-cluster-critical"


@pytest.mark.parametrize(("drain", "grace"), [(5, 30), (60, 80)])
def test_a_replica_has_the_time_that_its_stop_takes(drain: int, grace: int) -> None:
    """Agents and the Lease beside the drain, and then the reviews that are under way."""
    manifests = render(f"drainSeconds={drain}")
    pod = pick(manifests, "Deployment", NAME)["spec"]["template"]["spec"]
    assert settings_of(manifests).server.drain_seconds == drain
    assert pod["terminationGracePeriodSeconds"] == grace
    assert grace > max(drain, BROKER_GRACE + DROP_TIMEOUT + LeaderElection().retry_period) + HTTP_GRACE
    assert "lifecycle" not in pod["containers"][0], "the process drains by itself"


def test_a_new_replica_is_ready_before_an_old_one_stops(defaults: list[Manifest]) -> None:
    deployment = pick(defaults, "Deployment", NAME)["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    probes = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


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
    everywhere = [pick(manifests, "ClusterRole", NAME)]
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


def test_clients_prove_themselves_unless_told_otherwise(defaults: list[Manifest]) -> None:
    settings = settings_of(defaults)
    assert (settings.clients.authentication, settings.server.metrics) == ("kubernetes", "authenticated")


def test_users_roles_join_the_clusters_own_only_where_they_give_no_more(defaults: list[Manifest]) -> None:
    def aggregated(manifests: list[Manifest], name: str) -> set[str]:
        labels = pick(manifests, "ClusterRole", name)["metadata"]["labels"]
        return {label.rpartition("/")[2] for label in labels if "aggregate" in label}

    assert aggregated(defaults, "velda-viewer") == {"aggregate-to-view"}
    assert aggregated(defaults, "velda-session-user") == set()
    changed = render("clients.aggregateToView=false", "clients.aggregateToEdit=true")
    assert aggregated(changed, "velda-viewer") == set()
    assert aggregated(changed, "velda-session-user") == {"aggregate-to-edit"}


def test_the_client_ca_is_read_only_where_that_is_wanted(defaults: list[Manifest]) -> None:
    binding = pick(defaults, "RoleBinding", f"{NAME}-client-ca", "kube-system")
    assert binding["roleRef"]["name"] == "extension-apiserver-authentication-reader"
    without = render("clients.certificates=false")
    assert "kube-system" not in {item["metadata"].get("namespace") for item in without}


def test_the_server_can_neither_create_secrets_nor_read_others_secrets(defaults: list[Manifest]) -> None:
    roles = [item for item in defaults if item["kind"] in ("Role", "ClusterRole") and not is_hook(item)]
    rules = [rule for role in roles for rule in role["rules"]]
    assert [rule for rule in rules if "secrets" in rule["resources"]] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [f"{NAME}-tls"],
            "verbs": ["get", "list", "watch", "update"],
        }
    ]
    assert not [rule for rule in rules if "*" in rule["resources"] + rule["verbs"] + rule["apiGroups"]]


def test_what_the_process_fills_is_rendered_empty(defaults: list[Manifest]) -> None:
    assert "data" not in pick(defaults, "Secret", f"{NAME}-tls")
    assert not [item for item in defaults if item["kind"] == "Lease"], "Argo CD would leave it out"
    assert "data" not in pick(defaults, "ConfigMap", f"{NAME}-ca")


def test_every_user_may_read_the_ca_and_nothing_else(defaults: list[Manifest]) -> None:
    granted = [
        item["roleRef"]["name"]
        for item in defaults
        if item["kind"].endswith("Binding") and item["subjects"][0]["kind"] != "ServiceAccount"
    ]
    assert granted == [f"{NAME}-ca"]
    assert settings_of(defaults).webhook.ca_config_map == f"{NAME}-ca"
    assert pick(defaults, "Role", f"{NAME}-ca", NAMESPACE)["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [f"{NAME}-ca"], "verbs": ["get"]}
    ]
    assert pick(defaults, "RoleBinding", f"{NAME}-ca", NAMESPACE)["subjects"] == [
        {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"}
    ]


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
