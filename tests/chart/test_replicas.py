"""Replicas come and go, one after the other or all of them; what that may touch, and what never."""

from __future__ import annotations

import pytest

from tests.chart.release import NAME, NAMESPACE, Release

pytestmark = pytest.mark.e2e

IN_RELEASE = f"--namespace={NAMESPACE}"


def leader(release: Release) -> str:
    (name,) = release.pods("velda.io/role=leader")
    return name


def rolled_out(release: Release) -> None:
    release.kubectl("rollout", "status", f"deployment/{NAME}", IN_RELEASE, "--timeout=240s")


def test_no_admission_fails_while_replicas_are_replaced_and_upgraded(release: Release) -> None:
    release.install()
    before = release.pods()
    assert len(before) == 2
    with release.admission():
        for pod in before:
            release.kubectl("delete", "pod", pod, IN_RELEASE, "--timeout=240s")
            rolled_out(release)
        release.upgrade("--set=agents.tokenSeconds=3601")
    assert not set(before) & set(release.pods())
    for pod in before:
        said = release.fleet.log(pod)
        assert "stopped" in said.splitlines()[-1], "it ended by itself, within its grace period"


def test_another_leads_at_once_while_the_old_leader_still_answers_webhooks(release: Release) -> None:
    release.install("--set=drainSeconds=300")
    old = leader(release)
    (other,) = set(release.pods()) - {old}
    release.kubectl("delete", "pod", old, IN_RELEASE, "--wait=false")
    label = ("--for=jsonpath={.metadata.labels.velda\\.io/role}=leader", "--timeout=240s")
    release.kubectl("wait", f"pod/{other}", IN_RELEASE, *label)
    left = release.fleet.get("pod", old, IN_RELEASE)
    assert "deletionTimestamp" in left["metadata"]
    assert left["status"]["containerStatuses"][0]["state"].keys() == {"running"}
    assert "velda.io/role" not in left["metadata"]["labels"]
