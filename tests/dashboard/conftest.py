"""One browser for a module's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.dashboard.browser import launched
from tests.support import browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """For tests that run in the module's loop."""
    if reason := browser.obstacle():
        pytest.skip(reason)
    async with launched() as started:
        yield started
