"""Sources that tests read: of Go modules, in the version and with the checksum that a module file here pins."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support.tools import HERE, ToolError, cache_root
from tests.support.tools.go import find_go


def source(module: str, package: str) -> Path:
    """The directory of Go module ``package`` as ``module`` (a directory beside this file) pins it; raises ToolError."""
    command = [str(find_go(cache_root())), "mod", "download", "-json", package]
    done = subprocess.run(command, cwd=HERE / module, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"cannot get {package}: {done.stderr or done.stdout}")
    return Path(json.loads(done.stdout)["Dir"])
