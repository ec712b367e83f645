"""Sockets in another network namespace: they stay there, whichever thread uses them later."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_BACKLOG = 1024


class Netns:
    """A network namespace; ``None`` as ``pid`` means the one that we are in.

    A thread of its own enters it and makes the sockets.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._thread = ThreadPoolExecutor(1) if pid is not None else None
        if self._thread is not None:
            self._thread.submit(_enter, f"/proc/{pid}/ns/net").result()

    def listener(self, address: tuple[str, int]) -> socket.socket:
        return self._run(address, backlog=_BACKLOG)

    def dialer(self, source: str) -> socket.socket:
        """A socket that will connect from ``source``."""
        return self._run((source, 0), backlog=0)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    def _run(self, address: tuple[str, int], *, backlog: int) -> socket.socket:
        if self._thread is None:
            return _socket(address, backlog)
        return self._thread.submit(_socket, address, backlog).result()


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _LIBC.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {path}")
    finally:
        os.close(descriptor)


def _socket(address: tuple[str, int], backlog: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
        if backlog:
            made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made


def loopback_up() -> None:
    """A new network namespace has a loopback device, but it is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
