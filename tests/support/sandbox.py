"""What a container runtime does for a process: namespaces, loopback, files at their paths, then the command.

Run by the process kubelet: ``python -m tests.support.sandbox SPEC.json FD``. It says ``ready`` on FD once its
namespaces stand, and waits for a byte before it becomes the command, so that the Services are there first.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from pathlib import Path

from tests.support.netns import loopback_up

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWNET = 0x20000, 0x4000000, 0x40000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    parent = socket.socket(fileno=int(sys.argv[2]))
    _check(_LIBC.unshare(_CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWNET), "unshare")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    socket.sethostname(spec["hostname"])
    loopback_up()
    scratch = Path(spec["scratch"])
    _mount("tmpfs", str(scratch), "tmpfs", 0)
    for number, mount in enumerate(spec["mounts"]):
        _make_target(Path(mount["source"]), Path(mount["target"]), scratch / str(number))
    for mount in spec["mounts"]:
        _bind(mount["source"], mount["target"], read_only=mount["read_only"])
    parent.sendall(b"ready\n")
    if not parent.recv(1):
        sys.exit(1)
    parent.close()
    os.chdir("/")
    os.execvpe(spec["command"][0], spec["command"], spec["env"])


def _make_target(source: Path, target: Path, scratch: Path) -> None:
    """Where the path does not exist, lay a writable layer over its nearest parent: the machine stays as it is."""
    if target.exists():
        return
    _overlay(_nearest(target.parent), scratch)
    if source.is_dir():
        target.mkdir(parents=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def _bind(source: str, target: str, *, read_only: bool) -> None:
    _mount(source, target, None, _MS_BIND)
    if read_only:
        _mount(None, target, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)


def _nearest(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path.resolve()


def _overlay(directory: Path, scratch: Path) -> None:
    upper, work = scratch / "upper", scratch / "work"
    for path in (upper, work):
        path.mkdir(parents=True)
    _mount("overlay", str(directory), "overlay", 0, f"lowerdir={directory},upperdir={upper},workdir={work}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _check(_LIBC.mount(*encoded[:3], flags, encoded[3]), f"mount {source} on {target}")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
