"""``python -m crd.reference``: writes docs/reference/; ``--check`` writes nothing and fails when a page is stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from crd.reference import agentpool, commands, metrics, settings, values
from crd.written import write

DIRECTORY = Path(__file__).parents[2] / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "agentpool.md": agentpool.page,
    "settings.md": settings.page,
    "values.md": values.page,
    "commands.md": commands.page,
    "metrics.md": metrics.page,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m crd.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are as they should be")
    options = parser.parse_args()
    texts = {DIRECTORY / name: page() for name, page in PAGES.items()}
    return write(texts, check=options.check, command="make docs")


if __name__ == "__main__":
    sys.exit(main())
