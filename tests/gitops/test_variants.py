"""Whatever values the chart is given: what the API server makes of a manifest is no difference from it."""

from __future__ import annotations

import pytest

from tests.chart.release import NAMESPACE
from tests.chart.support import VARIANTS, render
from tests.gitops.argocd import ArgoCD, Manifest, tracked, whole
from tests.support.cluster import Fleet

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def argo(fleet: Fleet) -> ArgoCD:
    fleet.kubectl("create", "namespace", NAMESPACE, check=False)
    return ArgoCD(fleet)


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_nothing_differs_with_these_values(argo: ArgoCD, values: tuple[str, ...]) -> None:
    manifests = [_stopped(item) for item in tracked(render(*values), application="velda") if _is_served(item)]
    try:
        argo.sync(manifests)
        assert argo.differences(manifests) == {}
    finally:
        argo.kubectl("delete", "--ignore-not-found", "--filename=-", "--timeout=60s", input=whole(manifests))


def _stopped(item: Manifest) -> Manifest:
    """Without any replica: what it would fill is not looked at here."""
    return {**item, "spec": {**item["spec"], "replicas": 0}} if item["kind"] == "Deployment" else item


def _is_served(item: Manifest) -> bool:
    """Not of Prometheus' operator, whose types this cluster lacks."""
    return not item["apiVersion"].startswith("monitoring.coreos.com/")
