"""What the chart refuses before anything is installed."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.support import VARIANTS, helm, template
from tests.support.running import CHECKOUT

SCHEMA = json.loads((CHECKOUT / "chart" / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHECKOUT / "chart" / "values.yaml").read_text())


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_lint_finds_nothing(values: tuple[str, ...]) -> None:
    done = helm("lint", "--strict", "chart", *(f"--set={value}" for value in values), check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("replica=2", "replica"),
        ("image.name=x", "name"),
        ("replicas=two", "replicas"),
        ("replicas=-1", "replicas"),
        ("drainSeconds=301", "drainSeconds"),
        ("namespaces=velda", "namespaces"),
        ("namespaces={Upper}", "namespaces"),
        ("agents.authentication=password", "authentication"),
        ("agents.tokenSeconds=599", "tokenSeconds"),
        ("agents.tokenAudience=", "tokenAudience"),
        ("broker.tls=maybe", "tls"),
        ("agents.authentication=mtls,certificates.certManager.enabled=true", "certManager"),
        ("clients.authentication=password", "authentication"),
        ("metrics=shown", "metrics"),
        ("agents.brokerAddress=host-without-port", "brokerAddress"),
        ("webhook.failurePolicy=Sometimes", "failurePolicy"),
        ("webhook.timeoutSeconds=31", "timeoutSeconds"),
        ("crds.install=maybe", "install"),
        ("log.level=loud", "level"),
        ("podDisruptionBudget.maxUnavailable=some", "maxUnavailable"),
        ("networkPolicy.apiServerPorts={0}", "apiServerPorts"),
        ("nodeSelector.disk.type=ssd", "nodeSelector"),
        ("resources.request.cpu=1", "request"),
        ("certificates.overlapSeconds=-1", "overlapSeconds"),
        ("certificates.certManager.issuer=corporate", "issuer"),
        ("certificates.certManager.enabled=perhaps", "enabled"),
        ("serviceMonitor.interval=soon", "interval"),
        ("serviceMonitor.enabled=perhaps", "enabled"),
        ("prometheusRule.runbookUrl=", "runbookUrl"),
        ("grafanaDashboard.label=x", "label"),
        ("tracing.endpoint=collector:4317", "endpoint"),
        ("tracing.ratio=2", "ratio"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(value: str, key: str) -> None:
    done = template(value, check=False)
    assert done.returncode != 0
    assert key in done.stderr


def test_every_key_of_the_defaults_is_known_and_every_known_key_has_a_default() -> None:
    jsonschema.validate(DEFAULTS, SCHEMA, jsonschema.Draft202012Validator)
    assert _keys(DEFAULTS, SCHEMA) == _known(SCHEMA) - {"global", "resources.claims"}


def _known(schema: dict[str, Any], path: str = "") -> set[str]:
    found = set()
    for key, value in schema.get("properties", {}).items():
        found |= {f"{path}{key}"} | _known(value, f"{path}{key}.")
    return found


def _keys(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> set[str]:
    """Those of the values that are the chart's own, and not free-form."""
    found = set()
    for key, value in values.items():
        found.add(f"{path}{key}")
        below = schema["properties"][key]
        if "properties" in below:
            found |= _keys(value, below, f"{path}{key}.")
    return found
