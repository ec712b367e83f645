"""``python -m tests.support.tools build`` has every binary ready before pytest hides the progress; ``run NAME …`` runs
one of them."""

from __future__ import annotations

import os
import sys

from tests.support.tools import CONTROL_PLANE, ToolError, build_missing, tool

_USAGE = "usage: python -m tests.support.tools build | run NAME [ARGUMENT …]"


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["build"]:
                build_missing(CONTROL_PLANE)
                return 0
            case ["run", name, *rest]:
                path = tool(name)
                os.execv(path, [str(path), *rest])
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(_USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
