"""A clock that goes only where a test sets it."""

from __future__ import annotations


class Clock:
    """``now`` in seconds, of whatever it stands for."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
