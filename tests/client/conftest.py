"""One server for the tests that leave it as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.client.serving import SESSION_USER, VIEWER, Place
from tests.support.cluster import Cluster


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """No server runs there yet. Commands are run by a user who may list and run sessions."""
    cluster.install_crd()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    place = Place(cluster, tmp_path)
    place.environment["VELDA_TOKEN_FILE"] = str(place.user("session-user", SESSION_USER))
    return place


@pytest.fixture
async def served(place: Place) -> AsyncIterator[Place]:
    """With a server, a pool ``cpu`` and a second user, who may only look."""
    place.user("viewer", VIEWER)
    place.pool()
    async with place.server():
        yield place
