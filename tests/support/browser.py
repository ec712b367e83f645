"""``python -m tests.support.browser``: gets Chromium ready for the dashboard's tests, or says why they are skipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import debian

CHROMIUM = "/usr/bin/chromium"
_PACKAGES = {CHROMIUM: "chromium", "/usr/share/fonts/opentype/inter": "fonts-inter"}
"""Path → Debian package. With the font, pictures are the same on every machine."""


def obstacle() -> str:
    """Why there can be no browser here; empty when there is one."""
    return "" if shutil.which(CHROMIUM) else "Debian's chromium is not installed, which needs root"


def main() -> int:
    absent = [package for path, package in _PACKAGES.items() if not Path(path).exists()]
    try:
        if absent and debian.can_install():
            debian.install(absent, purpose="the dashboard's tests")
    except subprocess.CalledProcessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if reason := obstacle():
        print(f"No browser here: {reason}. The dashboard's pages are not tested.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
