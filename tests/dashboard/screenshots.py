"""``make screenshots``: the dashboard's pages as docs/images/dashboard-*.png, light and dark."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from app.broker.access import Caller, Credentials, Right
from app.broker.refusal import Reason, RefusedError
from tests.broker.world import CPU
from tests.dashboard.browser import Tab, launched, opened
from tests.dashboard.scene import NOW, SHOWN, scene
from tests.dashboard.serving import dashboard
from tests.support import browser
from tests.support.running import CHECKOUT

IMAGES = CHECKOUT / "docs" / "images"


class Locked:
    """Nobody is let in."""

    async def identify(self, credentials: Credentials) -> Caller:
        raise RefusedError(Reason.UNAUTHENTICATED, "who are you?")

    async def allows(self, caller: Caller, right: Right) -> bool:
        return False


async def take(directory: Path) -> list[Path]:
    """The files that were written."""
    taken = []
    async with launched() as chromium, scene() as served, dashboard(CPU, access=Locked()) as locked:
        for theme in ("light", "dark"):
            for name, url, words in (
                ("pools", served.url, "gpu-a100"),
                ("pool", f"{served.url}/#/pools/{SHOWN.namespace}/{SHOWN.name}", "jupyter"),
                ("login", locked.url, "How to get a token"),
            ):
                async with opened(chromium, url, dark=theme == "dark", width=1360, height=860, at=NOW) as tab:
                    await tab.says("main", words)
                    path = directory / f"dashboard-{name}-{theme}.png"
                    await _picture(tab, path)
                    taken.append(path)
                    print(path, flush=True)
    return taken


async def _picture(tab: Tab, path: Path) -> None:
    """Once all that came has been drawn."""
    await tab.page.wait_for_timeout(500)
    await tab.page.screenshot(path=path, full_page=True, animations="disabled", caret="hide")
    assert not tab.complaints, tab.complaints


def main() -> int:
    if reason := browser.obstacle():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    asyncio.run(take(IMAGES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
