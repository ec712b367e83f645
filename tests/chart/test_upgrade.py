"""From the last version of the chart to this one, back, and forth again; ``previous.tgz`` is that last version.

It is what `helm package` made of the chart of commit b4de90d; a release replaces it.
"""

from __future__ import annotations

import pytest

from tests.chart.release import Release
from tests.support.cluster import CRD
from tests.support.running import CHECKOUT

pytestmark = pytest.mark.e2e

PREVIOUS = str(CHECKOUT / "tests" / "chart" / "previous.tgz")


@pytest.mark.parametrize("crd", ["helm's", "there before"])
def test_upgrade_rollback_and_upgrade_keep_pools_and_let_every_admission_through(release: Release, crd: str) -> None:
    values: tuple[str, ...] = ()
    if crd == "there before":
        release.kubectl("apply", f"--filename={CHECKOUT / 'crd' / 'agentpools.velda.io.yaml'}")
        values = ("--set=crds.install=false",)
    namespace = release.namespace()
    release.helm("install", PREVIOUS, "--create-namespace", *values)
    release.apply("cpu", namespace)
    release.joined("cpu", namespace)
    pods = release.kubectl("get", "pods", f"-n={namespace}", "-o=name").stdout
    with release.admission():
        release.upgrade(*values)
        assert len(release.pods()) == 2
        release.helm("rollback")
        assert len(release.pods()) == 1
        release.upgrade(*values)
    release.test()
    release.joined("cpu", namespace)
    assert release.kubectl("get", "pods", f"-n={namespace}", "-o=name").stdout == pods
    release.uninstall()
    kept = [f"customresourcedefinition.apiextensions.k8s.io/{CRD}", "configmap/velda-config"] if values else []
    assert sorted(release.remains()) == sorted(kept)
