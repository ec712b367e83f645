from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chart.release import Release
from tests.support.cluster import Fleet


@pytest.fixture
def release(fleet: Fleet) -> Iterator[Release]:
    """Not installed yet; whatever a test leaves is removed."""
    release = Release(fleet)
    yield release
    release.clean()
