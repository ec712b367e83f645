"""``python -m tests.support.tools [--node]``: has every binary ready before pytest hides the progress."""

from __future__ import annotations

import sys

from tests.support.tools import CONTROL_PLANE, NODE, ToolError, cache_root, missing, provide


def main() -> int:
    batches = CONTROL_PLANE + (NODE if "--node" in sys.argv[1:] else ())
    absent = missing(batches)
    if not absent:
        return 0
    print(
        f"Building {', '.join(absent)} into {cache_root()} (once per machine; about 12 minutes when nothing is cached)"
    )
    try:
        provide(batches)
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
