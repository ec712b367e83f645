"""``python -m tests.support.tools build`` has the control plane's binaries ready before pytest hides the progress,
``build gitops`` that of tests/gitops; ``run NAME …`` runs one of them."""

from __future__ import annotations

import os
import sys

from tests.support.tools import CONTROL_PLANE, GITOPS, ToolError, build_missing, tool

_USAGE = "usage: python -m tests.support.tools build [gitops] | run NAME [ARGUMENT …]"


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["build"]:
                build_missing(CONTROL_PLANE)
                return 0
            case ["build", "gitops"]:
                build_missing(GITOPS)
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
