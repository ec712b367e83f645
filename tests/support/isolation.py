"""Namespaces of a stage's own: whatever it mounts, listens on or leaves running ends with them."""

from __future__ import annotations

import functools
import os
import subprocess

from tests.support.process import StageError

_UNSHARE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
_AS_ROOT = ["--user", "--map-root-user"]


def namespaces(stage: str) -> list[str]:
    """The command that goes before the stage's own; raises StageError where this machine does not allow it."""
    if stage == "plane":
        return []
    reason = obstacle()
    if reason:
        raise StageError(f"the {stage} stage needs root or user namespaces, and this machine allows neither: {reason}")
    return _prefix()


@functools.cache
def obstacle() -> str:
    """Why there can be no namespaces here; empty when there can."""
    try:
        tried = subprocess.run([*_prefix(), "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return tried.stderr.strip() if tried.returncode else ""


def _prefix() -> list[str]:
    return _UNSHARE if os.geteuid() == 0 else [*_UNSHARE, *_AS_ROOT]
