"""``python -m tests.support.tools build`` has every binary ready before pytest hides the progress; ``run NAME …`` runs
one of them."""

from __future__ import annotations

import os
import sys

from tests.support.tools import CONTROL_PLANE, NODE, ToolError, cache_root, missing, provide, tool

_USAGE = "usage: python -m tests.support.tools build [--node] | run NAME [ARGUMENT …]"


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["build", *options]:
                return _build(node="--node" in options)
            case ["run", name, *rest]:
                path = tool(name)
                os.execv(path, [str(path), *rest])
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(_USAGE, file=sys.stderr)
    return 2


def _build(*, node: bool) -> int:
    batches = CONTROL_PLANE + (NODE if node else ())
    absent = missing(batches)
    if absent:
        print(f"Building {', '.join(absent)} into {cache_root()}: once per machine, 12 minutes when nothing is cached")
        provide(batches)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
