"""Each fault: real servers, a real control plane, and all right again in the time that the scenario names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.scenarios import SCENARIOS
from tests.faults.scene import World, world
from tests.support import tools

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hurt() -> AsyncIterator[World]:
    tools.build_missing(tools.CONTROL_PLANE)
    async with world() as made:
        yield made


@pytest.mark.parametrize("name", SCENARIOS)
async def test_all_is_right_after(name: str, hurt: World) -> None:
    await SCENARIOS[name](hurt)
