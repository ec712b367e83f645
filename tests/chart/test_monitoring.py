"""ServiceMonitor, alerts and dashboard: held against the operator's CRDs, by promtool, and against what is measured."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core.proofs import CA_KEY
from app.settings import Tracing, parse
from crd.reference import metrics
from tests.chart.support import NAMESPACE, Manifest, pick, render
from tests.support.cluster import Cluster
from tests.support.running import CHECKOUT
from tests.support.tools import tool
from tests.support.tools.source import source

NAME = "velda-apiserver"
ENABLED = ("serviceMonitor.enabled=true", "prometheusRule.enabled=true", "grafanaDashboard.enabled=true")
KINDS = ("servicemonitors", "prometheusrules")
RULES = CHECKOUT / "chart" / "files" / "alerts.yaml"
TESTS = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
DASHBOARD = json.loads((CHECKOUT / "chart" / "files" / "grafana-dashboard.json").read_text(encoding="utf-8"))
SCRAPED = {"namespace", "job", "pod", "instance"}
"""Labels that Prometheus itself gives to what it scrapes."""


def promtool(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(tool("promtool")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def plain(expression: str) -> str:
    """Without Grafana's variables."""
    return re.sub(r"\$\w+", "x", expression.replace("$__rate_interval", "5m"))


EXPRESSIONS = {
    **{f"{rule['alert']} ({rule['labels']['severity']})": rule["expr"] for rule in rules()},
    **{f"{p['title']} {target['refId']}": plain(target["expr"]) for p in panels() for target in p["targets"]},
}


# By the operator.


@pytest.fixture(scope="module")
def home(cluster: Cluster) -> Iterator[Cluster]:
    """With the operator's CRDs and the release's namespace."""
    operator = source("prometheusoperator", "github.com/prometheus-operator/prometheus-operator")
    crds = operator / "example" / "prometheus-operator-crd"
    files = {f"{kind}.monitoring.coreos.com": crds / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS}
    with cluster.with_crds(files):
        cluster.kubectl("create", "namespace", NAMESPACE, check=False)
        yield cluster


@pytest.mark.parametrize("metrics", ["authenticated", "open"])
def test_the_operator_takes_every_manifest(home: Cluster, metrics: str) -> None:
    before = {(item["kind"], item["metadata"]["name"]) for item in render()}
    added = [
        item
        for item in render(*ENABLED, f"metrics={metrics}", "serviceMonitor.labels.release=prometheus")
        if (item["kind"], item["metadata"]["name"]) not in before
    ]
    assert {item["kind"] for item in added} >= {"ServiceMonitor", "PrometheusRule", "ConfigMap"}
    home.dry_run(*added)


def test_a_mistake_would_be_found(home: Cluster) -> None:
    wrong = pick(render(*ENABLED), "ServiceMonitor", NAME)
    wrong["spec"]["endpoints"][0]["tlsConfig"]["servername"] = "x"
    done = home.dry_run(wrong, check=False)
    assert done.returncode
    assert "servername" in done.stderr


# What is rendered.


def test_every_replica_is_scraped_once_as_its_certificate_is_named_with_a_token_that_may() -> None:
    manifests = render(*ENABLED)
    monitor = pick(manifests, "ServiceMonitor", NAME)
    (endpoint,) = monitor["spec"]["endpoints"]
    selector = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = (
        item for item in manifests if item["kind"] == "Service" and selector <= item["metadata"]["labels"].items()
    )
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert "velda.io/role" not in service["spec"]["selector"]
    assert endpoint["tlsConfig"] == {
        "ca": {"configMap": {"name": f"{NAME}-ca", "key": CA_KEY}},
        "serverName": f"{service['metadata']['name']}.{NAMESPACE}.svc",
    }
    assert pick(manifests, "ConfigMap", f"{NAME}-ca")
    credentials = endpoint["authorization"]["credentials"]
    secret = pick(manifests, "Secret", credentials["name"])
    account = secret["metadata"]["annotations"]["kubernetes.io/service-account.name"]
    assert account_rules(manifests, account) == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]


def account_rules(manifests: list[Manifest], account: str) -> list[Any]:
    """All that the release grants to the account."""
    roles = {item["metadata"]["name"]: item["rules"] for item in manifests if item["kind"] == "ClusterRole"}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}
    bindings = [item for item in manifests if subject in item.get("subjects", ())]
    return [rule for item in bindings for rule in roles[item["roleRef"]["name"]]]


def test_open_metrics_need_no_account() -> None:
    manifests = render(*ENABLED, "metrics=open")
    assert "authorization" not in pick(manifests, "ServiceMonitor", NAME)["spec"]["endpoints"][0]
    assert f"{NAME}-metrics" not in {item["metadata"]["name"] for item in manifests}


def test_labels_and_addresses_follow_the_values() -> None:
    labels = [f"{value}.labels.release=p" for value in ("serviceMonitor", "prometheusRule", "grafanaDashboard")]
    manifests = render(
        *ENABLED, *labels, "serviceMonitor.interval=15s", "prometheusRule.runbookUrl=https://docs/alerts"
    )
    monitor, rule = pick(manifests, "ServiceMonitor", NAME), pick(manifests, "PrometheusRule", NAME)
    dashboard = pick(manifests, "ConfigMap", f"{NAME}-dashboard")
    assert {item["metadata"]["labels"]["release"] for item in (monitor, rule, dashboard)} == {"p"}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert monitor["spec"]["endpoints"][0]["interval"] == "15s"
    assert rule["spec"]["groups"][0]["rules"][0]["annotations"]["runbook_url"] == "https://docs/alerts#veldadown"


def test_alerts_and_dashboard_are_rendered_as_they_are() -> None:
    manifests = render(*ENABLED)
    assert pick(manifests, "PrometheusRule", NAME)["spec"] == yaml.safe_load(RULES.read_text(encoding="utf-8"))
    assert json.loads(pick(manifests, "ConfigMap", f"{NAME}-dashboard")["data"][f"{NAME}.json"]) == DASHBOARD


def test_without_a_word_nothing_of_it_is_there() -> None:
    manifests = render()
    assert not [item for item in manifests if item["apiVersion"].startswith("monitoring.coreos.com/")]
    assert not {f"{NAME}-metrics", f"{NAME}-dashboard"} & {item["metadata"]["name"] for item in manifests}


def test_spans_are_sent_where_the_values_say_and_the_policy_lets_them() -> None:
    def settings(*values: str) -> Tracing:
        config = pick(render(*values), "ConfigMap", f"{NAME}-config")["data"]["velda-config.yaml"]
        return parse(config, "velda-config.yaml").tracing

    address = "http://collector.monitoring:4317"
    assert settings() == Tracing()
    assert settings(f"tracing.endpoint={address}", "tracing.ratio=0.25") == Tracing(endpoint=address, ratio=0.25)
    policies = render(f"tracing.endpoint={address}", "networkPolicy.enabled=true")
    egress = pick(policies, "NetworkPolicy", NAME)["spec"]["egress"]
    assert {"ports": [{"port": 4317, "protocol": "TCP"}]} in egress


# By promtool.


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_then_alone(path: Path) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires: dict[str, set[bool]] = {}
    for path in TESTS:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for one in test["alert_rule_test"]:
                fires.setdefault(one["alertname"], set()).add("exp_alerts" in one)
    assert fires == {rule["alert"]: {True, False} for rule in rules()}


def test_every_expression_can_be_read_those_of_the_dashboard_too(tmp_path: Path) -> None:
    recorded = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(EXPRESSIONS.values())]
    (file := tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": recorded}]}))
    done = promtool("check", "rules", "--lint=none", file)
    assert done.returncode == 0, done.stdout + done.stderr
    file.write_text(file.read_text().replace("histogram_quantile(", "histogram_quantil("))
    assert promtool("check", "rules", "--lint=none", file).returncode != 0


# Against what is measured.


def known() -> dict[str, set[str]]:
    """Names of series that there can be, with their labels."""
    names: dict[str, set[str]] = {}
    for one in (*metrics.of_pools(), *metrics.of_replicas()):
        names[one.name] = {*one.labels, *SCRAPED}
        if one.type == "histogram":
            names[f"{one.name}_bucket"] = {*one.labels, *SCRAPED, "le"}
    return names


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_what_an_expression_names_is_measured_with_these_labels(expression: str) -> None:
    series = re.findall(r"\b((?:velda|process)_\w+)(?:\{([^}]*)\})?", expression)
    assert series
    asked = {label for labels in re.findall(r"\bby \(([^)]*)\)", expression) for label in labels.split(", ")}
    for name, matchers in series:
        assert name in known()
        assert {*re.findall(r"(\w+)[=!]", matchers)} | asked <= known()[name]


def test_legends_name_labels_that_are_left() -> None:
    for panel in panels():
        for target in panel["targets"]:
            shown = {*re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))}
            kept = {label for labels in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for label in labels.split(", ")}
            assert shown <= (kept if " by (" in target["expr"] else SCRAPED), panel["title"]


def test_the_tests_of_alerts_feed_them_series_that_there_are() -> None:
    texts = [path.read_text(encoding="utf-8") for path in TESTS]
    series = [re.fullmatch(r"(\w+)\{(.*)\}", each["series"]) for each in _inputs(texts)]
    assert len(series) > 50
    for found in series:
        assert found
        assert {*re.findall(r"(\w+)=", found[2])} <= known()[found[1]]


def _inputs(texts: list[str]) -> Iterator[dict[str, str]]:
    for text in texts:
        for test in yaml.safe_load(text)["tests"]:
            yield from test.get("input_series", ())


# The runbook.


def test_each_alert_has_its_section_and_leads_there() -> None:
    text = (CHECKOUT / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert {*re.findall(r"^### (\w+)$", text, re.M)} == {rule["alert"] for rule in rules()}
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"


def test_the_runbook_quotes_what_the_log_says() -> None:
    text = " ".join((CHECKOUT / "docs" / "alerts.md").read_text(encoding="utf-8").split())
    quoted = {*re.findall(r"log (?:has|says) `([^`]+)`", text), *re.findall(r"`([^`]+)` in the log", text)}
    source = "".join(
        path.read_text(encoding="utf-8") for part in ("app", "certs") for path in (CHECKOUT / part).rglob("*.py")
    )
    assert len(quoted) > 6
    assert [words for words in quoted if f'"{words}"' not in source] == []
