from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.kube.client import Client
from tests.kube.faults import FaultServer


@pytest.fixture
async def faults() -> AsyncIterator[FaultServer]:
    async with FaultServer() as server:
        yield server


@pytest.fixture
async def client(faults: FaultServer) -> AsyncIterator[Client]:
    """A client of the fault server."""
    async with faults.client() as client:
        yield client
