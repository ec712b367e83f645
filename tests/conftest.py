"""Fixtures that every test may use; a stage starts when the first test of a worker asks for it, and ends with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.broker.reports import LINES, reports
from tests.support import isolation, node_tools
from tests.support.cluster import Cluster, Fleet, NodeStage, stage_process
from tests.support.stage import prepare


@pytest.fixture(autouse=True)
def room_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the refusals of each test: those of the tests before may have used it up."""
    monkeypatch.setattr(reports, "_lines", float(LINES))


@pytest.fixture(scope="session")
def plane(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A control plane with kwok nodes."""
    with _stage(request, "plane") as description:
        yield Cluster(kubeconfig=Path(description["kubeconfig"]), directory=Path(description["directory"]))


@pytest.fixture(scope="module")
def cluster(plane: Cluster) -> Iterator[Cluster]:
    """The plane, with nothing of ours installed in it."""
    yield plane
    plane.sweep()


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """The fleet stage, apart from ``cluster``: here releases of the chart run, and agents join them."""
    if reason := isolation.obstacle():
        pytest.skip(f"the fleet stage needs root or user namespaces: {reason}")
    with _stage(request, "fleet") as description:
        yield Fleet(kubeconfig=Path(description["kubeconfig"]), directory=Path(description["directory"]))


@pytest.fixture(scope="session")
def node_stage(request: pytest.FixtureRequest) -> Iterator[NodeStage]:
    """A real node (node-0) with kwok nodes beside it, and the images of the present sources in its registry."""
    if reason := node_tools.obstacle():
        pytest.skip(f"no node stage here: {reason}")
    with _stage(request, "node") as description:
        yield NodeStage(kubeconfig=Path(description["kubeconfig"]), directory=Path(description["directory"]))


@contextmanager
def _stage(request: pytest.FixtureRequest, name: str) -> Iterator[dict[str, str]]:
    """Build what is missing with the progress shown, run the stage, keep its logs if a test failed."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        prepare(name)
    with stage_process(name, keep_logs=lambda: bool(request.session.testsfailed)) as description:
        yield description
