"""``python -m tests.faults.hurried serve …``: the server, whose watches count as dead after 2 s without a line.

Its wall clock jumps: a day ahead at SIGUSR1, two back at SIGUSR2.
"""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime, timedelta

from app.__main__ import main
from app.kube import leader
from app.kube.informer import Informer

SILENCE = 2.0
DAY = 86400.0


class WallClock:
    def __init__(self) -> None:
        self._real = time.time
        self._ahead = 0.0

    def jump(self, seconds: float) -> None:
        self._ahead += seconds

    def time(self) -> float:
        return self._real() + self._ahead

    def text(self) -> str:
        ahead = datetime.now(UTC) + timedelta(seconds=self._ahead)
        return ahead.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


if __name__ == "__main__":
    clock = WallClock()
    defaults = Informer.__init__.__kwdefaults__
    assert defaults is not None
    defaults["silence"] = SILENCE
    time.time = clock.time
    leader._wall = clock.text
    signal.signal(signal.SIGUSR1, lambda *_: clock.jump(DAY))
    signal.signal(signal.SIGUSR2, lambda *_: clock.jump(-2 * DAY))
    main()
