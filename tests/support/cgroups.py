"""The one thing of a node that no namespace takes along: its containers' cgroups. They get a subtree of their own."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_ROOT = "/sys/fs/cgroup"
_INHERITED = ("cpuset.cpus", "cpuset.mems")
"""Empty in a new cgroup of version 1, and then nothing can run in it."""


def make(name: str) -> list[tuple[str, str]]:
    """Make the subtree in every hierarchy; returns what is to be mounted over what, in the node's mount namespace."""
    mounts = []
    for hierarchy in _hierarchies():
        subtree = hierarchy / name
        subtree.mkdir(exist_ok=True)
        for file in _INHERITED:
            if (hierarchy / file).exists() and not (subtree / file).read_text().strip():
                (subtree / file).write_text((hierarchy / file).read_text())
        mounts.append((str(subtree), str(hierarchy)))
    return mounts


def writable() -> bool:
    """Whether this machine lets us make cgroups."""
    hierarchies = _hierarchies()
    return bool(hierarchies) and all(os.access(path, os.W_OK) and _is_mounted_writable(path) for path in hierarchies)


def _is_mounted_writable(path: Path) -> bool:
    return not os.statvfs(path).f_flag & os.ST_RDONLY


def remove(name: str) -> None:
    """Once every process in it has ended, which takes the kernel a moment after a kill."""
    for hierarchy in _hierarchies():
        for path, _, _ in os.walk(hierarchy / name, topdown=False):
            _remove(Path(path))


def _remove(path: Path) -> None:
    for _ in range(50):
        with contextlib.suppress(FileNotFoundError):
            try:
                path.rmdir()
            except OSError:
                time.sleep(0.1)
                continue
        return


def _hierarchies() -> list[Path]:
    """Version 1 where it is in use: what is of version 2 beside it has no controllers."""
    found: dict[str, list[Path]] = {"cgroup": [], "cgroup2": []}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, *_ = line.split()
        if kind in found and path.startswith(_ROOT):
            found[kind].append(Path(path))
    return found["cgroup"] or found["cgroup2"]
