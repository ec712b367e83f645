"""When to try again: the server may be away for seconds, as when another replica takes the lead."""

from __future__ import annotations

import random

FIRST = 0.5
MOST = 5.0


class Backoff:
    """Seconds to wait, each time twice as many up to MOST, and half of them by chance."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._next = FIRST

    def seconds(self) -> float:
        pause, self._next = self._next, min(MOST, self._next * 2)
        return pause * random.uniform(0.5, 1)  # noqa: S311  no secret
