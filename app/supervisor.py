"""Tells systemd how the service fares: ready, alive, stopping, and a line for ``systemctl status``.

The protocol is a datagram to the socket that the environment names (sd_notify(3)); without one, nobody is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping

STATUS_PERIOD = 2.0
"""Seconds between two signs of life, where the watchdog does not want them more often: twice in each of its periods."""


class Supervisor:
    """Of a unit with ``Type=notify``, and ``WatchdogSec`` where hangs are to end in a restart."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watched = int(environ.get("WATCHDOG_USEC", "0")) / 1e6 if ours else 0.0
        self._period = min(watched / 2 or STATUS_PERIOD, STATUS_PERIOD)

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._tell("STOPPING=1", f"STATUS={status}")

    async def beat(self, status: Callable[[], str]) -> None:
        """A sign of life and the status, now and then; the event loop sends it, so that one that is stuck is found out.

        Ends at once where there is no systemd.
        """
        while self._address:
            self._tell("WATCHDOG=1", f"STATUS={status()}")
            await asyncio.sleep(self._period)

    def _tell(self, *lines: str) -> None:
        """What cannot be told is not: a service does not end because nobody listens."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)
