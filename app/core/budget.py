"""How much work one thing may cause: a leaky bucket of seconds. Time is an argument, in monotonic seconds."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

LATELY = 1.0
"""Seconds for which whoever has worked is one of the crowd."""


@dataclass(slots=True)
class Budget:
    """``share`` of a second is earned each second, ``credit`` seconds at most; what is spent beyond must be waited for.

    Work that comes now and then is never delayed; a stream of it takes ``share`` of a core. ``patience`` bounds a wait.
    """

    share: float
    credit: float
    patience: float
    _debt: float = 0.0
    _at: float = float("-inf")

    def spend(self, seconds: float, *, now: float, crowd: float = 1.0) -> float:
        """Work that took so long has just ended; returns when the next may begin.

        In a ``crowd`` of so many that each have a budget, it counts so many times: all together take one share.
        """
        seconds *= crowd
        left = max(0.0, self._debt - self.share * max(0.0, now - self._at)) if self._debt else 0.0
        most = self.credit + self.share * self.patience
        self._debt, self._at = min(left + seconds, most), now
        return now + max(0.0, self._debt - self.credit) / self.share


class Crowd:
    """How many work at about the same time."""

    def __init__(self) -> None:
        self._lately: dict[Hashable, float] = {}
        """When each last worked, in that order."""

    def joined_by(self, who: Hashable, *, now: float) -> int:
        """``who`` works; returns how many have done so lately, each counted once."""
        self._lately.pop(who, None)
        self._lately[who] = now
        while self._lately[first := next(iter(self._lately))] <= now - LATELY:
            del self._lately[first]
        return len(self._lately)
