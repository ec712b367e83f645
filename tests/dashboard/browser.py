"""Debian's Chromium, driven by playwright; whatever it complains of, or asks of others, is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

from tests.support.browser import CHROMIUM

ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",  # which root may not have; only our own pages are opened
)
TIMEOUT = 20_000
"""Milliseconds until what a test expects must be there."""


class Tab:
    """One page of one reader. ``complaints`` are errors and warnings of the console, ``others`` foreign requests."""

    def __init__(self, page: Page, context: BrowserContext, origin: str) -> None:
        self.page, self.context = page, context
        self.complaints: list[str] = []
        self.requests: list[Request] = []
        self._origin = urlsplit(origin).netloc
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        context.on("request", self._request)

    @property
    def others(self) -> list[str]:
        return [request.url for request in self.requests if urlsplit(request.url).netloc != self._origin]

    def _request(self, request: Request) -> None:
        self.requests.append(request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    async def text(self, selector: str) -> str:
        return await self.page.inner_text(selector)

    async def says(self, selector: str, words: str) -> None:
        """Wait until it does."""
        await self.page.locator(selector, has_text=words).first.wait_for()

    async def violations(self, *rules: str) -> list[str]:
        """What axe-core finds by these rules, or by all of its own, in words."""
        await self.page.evaluate(AXE_SCRIPT)
        only = {"runOnly": list(rules)} if rules else {}
        found = await self.page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **only})
        return [
            f"{violation['id']} ({violation['impact']}): {node['target']} {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """One process for many tests: it takes seconds to start."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@asynccontextmanager
async def opened(
    browser: Browser, url: str, *, dark: bool = False, width: int = 1360, height: int = 900, at: float | None = None
) -> AsyncIterator[Tab]:
    """A tab at that address, with no memory of others; ``at`` is the time that it believes in (epoch seconds)."""
    context = await browser.new_context(
        ignore_https_errors=True,  # our own CA is not in its store
        color_scheme="dark" if dark else "light",
        viewport={"width": width, "height": height},
        locale="en-GB",
        timezone_id="UTC",
    )
    context.set_default_timeout(TIMEOUT)
    tab = Tab(await context.new_page(), context, url)
    try:
        if at is not None:
            await tab.page.clock.set_fixed_time(datetime.fromtimestamp(at, UTC))
        await tab.page.goto(url)
        yield tab
    finally:
        await context.close()
