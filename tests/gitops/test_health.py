"""Health, as Argo CD tells it by our script and as Flux and helm do by kstatus: of recorded pools, and of any status.

health_test.yaml and testdata/ are in the form in which Argo CD takes health checks into itself; ``kstatus`` is added.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lupa.lua51
import pytest
import yaml

from tests.chart.support import pick, render
from tests.gitops.argocd import ask
from tests.gitops.lua import SCRIPT, Health, health, sandbox
from tests.gitops.phases import Object

HERE = Path(__file__).parent
CASES: list[dict[str, Any]] = yaml.safe_load((HERE / "health_test.yaml").read_text())["tests"]
MEANS = {"Healthy": "Current", "Suspended": "Current", "Degraded": "Failed", "Progressing": "InProgress"}
"""What kstatus calls it, but for what is being deleted, which is Terminating."""


def recorded(case: dict[str, Any]) -> Object:
    loaded: Object = yaml.safe_load((HERE / case["inputPath"]).read_text())
    return loaded


def health_in_argocd(*pools: Object) -> list[Health]:
    """By gopher-lua, the Lua of Argo CD itself."""
    return [Health(**told) for told in ask("health", SCRIPT, objects=pools)]


def kstatus(*pools: Object) -> list[str]:
    return [told["status"] for told in ask("kstatus", objects=pools)]


@pytest.mark.parametrize("case", CASES, ids=[Path(case["inputPath"]).stem for case in CASES])
def test_a_recorded_pool_is_told_as_it_was(case: dict[str, Any]) -> None:
    told = Health(**case["healthStatus"])
    assert health(recorded(case)) == told
    assert health_in_argocd(recorded(case)) == [told]
    assert kstatus(recorded(case)) == [case["kstatus"]]


def test_every_recorded_pool_is_a_case_and_every_health_has_one() -> None:
    files = {path.relative_to(HERE).as_posix() for path in (HERE / "testdata").iterdir()}
    assert {case["inputPath"] for case in CASES} == files
    assert {case["healthStatus"]["status"] for case in CASES} == set(MEANS)
    assert {case["kstatus"] for case in CASES} == {*MEANS.values(), "Terminating"}


def pools() -> Iterator[Object]:
    """Every combination of what either looks at, and more than the controller ever writes."""
    truths = ("", "True", "False", "Unknown")
    conditions = itertools.product(itertools.permutations(("Ready", "Reconciling", "Stalled")), truths, truths, truths)
    for order, *values in conditions:
        for observed, about, deleted, most in itertools.product((None, -1, 1, 2), (None, 1, 2), (False, True), (0, 5)):
            told = [
                {"type": kind, "status": value, "message": kind, **({"observedGeneration": about} if about else {})}
                for kind, value in zip(order, values, strict=True)
                if value
            ]
            yield _pool(told, observed=observed, deleted=deleted, most=most)
    yield {"metadata": {"name": "p", "generation": 2}, "spec": {"autoscaler": {"maxReplicas": 5}}}


def _pool(conditions: list[Object], *, observed: int | None, deleted: bool, most: int) -> Object:
    metadata = {"name": "p", "generation": 2, **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})}
    status = {"conditions": conditions, **({"observedGeneration": observed} if observed is not None else {})}
    return {"metadata": metadata, "spec": {"autoscaler": {"maxReplicas": most}}, "status": status}


def is_whole(pool: Object) -> bool:
    """As the controller writes it: of the present generation, with a Ready."""
    status = pool.get("status", {})
    told = status.get("conditions", [])
    about = {2} == {one.get("observedGeneration") for one in told}
    return about and status.get("observedGeneration") == 2 and any(one["type"] == "Ready" for one in told)


def test_argo_cd_and_kstatus_agree_on_whole_statuses_and_argo_cd_waits_for_those_that_are_not() -> None:
    every = [{"apiVersion": "velda.io/v1", "kind": "AgentPool", **pool} for pool in pools()]
    assert len(every) > 15_000
    for pool, told, theirs in zip(every, health_in_argocd(*every), kstatus(*every), strict=True):
        if pool["metadata"].get("deletionTimestamp"):
            assert (told.status, theirs) == ("Progressing", "Terminating")
        elif is_whole(pool):
            assert MEANS[told.status] == theirs, pool
            assert (told.status == "Suspended") <= (pool["spec"]["autoscaler"]["maxReplicas"] == 0)
        elif told.status != "Degraded":
            assert told.status == "Progressing", pool
        else:
            assert theirs == "Failed", pool


@pytest.mark.parametrize("name", ["string", "math", "os", "io", "table", "debug", "package", "require", "coroutine"])
def test_the_script_has_base_lua_alone(name: str) -> None:
    assert sandbox().globals()[name] is None


def test_strings_have_no_methods_either() -> None:
    with pytest.raises(lupa.lua51.LuaError, match="attempt to index a string"):
        sandbox().eval("('a'):upper()")


def test_the_chart_ships_the_script_under_argo_cds_key_and_only_on_request() -> None:
    shipped = pick(render("argocd.healthChecks.enabled=true"), "ConfigMap", "velda-apiserver-argocd")["data"]
    assert shipped == {"resource.customizations.health.velda.io_AgentPool": SCRIPT.read_text()}
    assert not [item for item in render() if item["metadata"]["name"].endswith("-argocd")]
