"""Files that are made from others: written, or only looked at."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def write(texts: Mapping[Path, str], *, check: bool, command: str) -> int:
    """Bring each file to its text; with ``check`` write nothing, and say what ``command`` would. The exit code."""
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"{path} is stale: run {command}", file=sys.stderr)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[path], encoding="utf-8")
        print(f"{path} written, {len(texts[path])} bytes")
    return 1 if stale and check else 0
