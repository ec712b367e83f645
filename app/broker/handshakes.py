"""TLS handshakes that led to no call: gRPC refuses a certificate of another CA by itself, and tells nobody.

It asks for what to serve at the beginning of each handshake, and agents call as soon as they are connected. So a
handshake that no call of a new peer followed has failed. Whose it was is not known.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from cachetools import LRUCache

from app.broker.refusal import Reason, RefusedError
from app.broker.reports import reports

SETTLED = 30.0
"""Seconds after which there must have been a call; gRPC gives a handshake 20."""
INTERVAL = 5.0
"""Seconds between two looks."""
UNSETTLED = 65536
"""Handshakes that are kept in mind; of a flood, the oldest go uncounted."""
PEERS = 16384
"""Connections that are known to have called, the latest of them."""
WHY = (
    "a TLS handshake led to no call: its certificate is not one that this server's CA has issued, or it showed none; "
    "GRPC_VERBOSITY=info has gRPC tell more"
)


class Handshakes:
    """``clock`` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: deque[float] = deque(maxlen=UNSETTLED)
        self._called: LRUCache[str, None] = LRUCache(PEERS)

    def begins(self) -> None:
        """From any thread."""
        self._begun.append(self._clock())

    def called(self, peer: str) -> None:
        """Must be told of each call of our services: the first of a connection is the end of its handshake."""
        if self._begun and peer not in self._called:
            self._begun.popleft()
        self._called[peer] = None

    def failed(self) -> int:
        """How many have failed since the last look."""
        failed = 0
        while self._begun and self._begun[0] <= self._clock() - SETTLED:
            self._begun.popleft()
            failed += 1
        return failed

    async def run(self) -> None:
        """Count and log them as what they are: refusals."""
        while True:
            await asyncio.sleep(INTERVAL)
            for _ in range(self.failed()):
                reports.refused(RefusedError(Reason.HANDSHAKE, WHY), call="TLS handshake", peer="unknown")


handshakes = Handshakes()
"""Of this process, as its metrics are."""
