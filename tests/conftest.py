"""Fixtures that every test may use; a stage starts when the first test asks for it and ends with the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import isolation, tools
from tests.support.cluster import Cluster, Fleet, stage_process


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A control plane with kwok nodes; nothing of ours is installed in it."""
    with _stage(request, "plane", tools.CONTROL_PLANE) as description:
        yield Cluster(kubeconfig=Path(description["kubeconfig"]), directory=Path(description["directory"]))


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """The fleet stage, apart from ``cluster``: here releases of the chart run, and agents join them."""
    if reason := isolation.obstacle():
        pytest.skip(f"the fleet stage needs root or user namespaces: {reason}")
    with _stage(request, "fleet", tools.CONTROL_PLANE) as description:
        yield Fleet(kubeconfig=Path(description["kubeconfig"]), directory=Path(description["directory"]))


@contextmanager
def _stage(request: pytest.FixtureRequest, name: str, batches: tuple[tools.Batch, ...]) -> Iterator[dict[str, str]]:
    """Build what is missing with the progress shown, run the stage, keep its logs if a test failed."""
    if tools.missing(batches):
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            tools.provide(batches)
    with stage_process(name, keep_logs=lambda: bool(request.session.testsfailed)) as description:
        yield description
