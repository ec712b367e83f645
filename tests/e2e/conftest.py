"""The installed product on the fleet stage, and a client that asks it for sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.product import Product, Sessions
from tests.support.cluster import Fleet


@pytest.fixture(scope="session")
def velda(fleet: Fleet) -> Iterator[Product]:
    """``helm install velda chart``, ready; uninstalled at the end."""
    product = Product(fleet)
    product.install()
    yield product
    product.uninstall()


@pytest.fixture
async def sessions(velda: Product) -> AsyncIterator[Sessions]:
    async with Sessions(velda.broker) as client:
        yield client
    # Sessions that a test leaves running end with their pool.
