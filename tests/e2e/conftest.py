"""The installed product on the fleet stage, and a client that asks it for sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.product import Product, Sessions
from tests.support.cluster import Fleet


@pytest.fixture(scope="package")
def velda(fleet: Fleet) -> Iterator[Product]:
    """``helm install velda chart``, ready; uninstalled before anything else runs on the stage."""
    product = Product(fleet)
    product.install()
    yield product
    product.uninstall()


@pytest.fixture(scope="package")
def token(velda: Product) -> str:
    """Of a user who may use sessions everywhere."""
    return velda.user("session-user")


@pytest.fixture
async def sessions(velda: Product, token: str) -> AsyncIterator[Sessions]:
    async with Sessions(velda.broker, token=token) as client:
        yield client
    # Sessions that a test leaves running end with their pool.
