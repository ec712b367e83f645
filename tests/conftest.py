"""Fixtures that every test may use; a stage starts when the first test asks for it and ends with the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import isolation, node_tools
from tests.support.cluster import Cluster, Fleet, NodeStage, stage_process
from tests.support.stage import prepare


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A control plane with kwok nodes; nothing of ours is installed in it."""
    with _stage(request, "plane") as description:
        yield Cluster(kubeconfig=Path(description["kubeconfig"]), directory=Path(description["directory"]))


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
