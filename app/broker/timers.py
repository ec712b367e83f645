"""Deadlines by what they concern. Whoever has the clock calls ``run_due``; ``wake`` tells it of an earlier time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.core.dispatch import Ranking


class Timers:
    """One deadline for each action and subject; setting it again moves it."""

    def __init__(self) -> None:
        self._ranking: Ranking[tuple[Callable[[Any], None], Any]] = Ranking()
        self.wake: Callable[[float], None] = lambda _: None

    def set(self, action: Callable[[Any], None], subject: Any, when: float) -> None:
        self._ranking.set((action, subject), (when,))
        first = self._ranking.first()
        if first and first[0] == (action, subject):
            self.wake(when)

    def discard(self, action: Callable[[Any], None], subject: Any) -> None:
        self._ranking.discard((action, subject))

    def next(self) -> float | None:
        """When ``run_due`` is due."""
        first = self._ranking.first()
        return first[1][0] if first else None

    def run_due(self, now: float) -> None:
        while (first := self._ranking.first()) and first[1][0] <= now:
            self._ranking.discard(first[0])
            action, subject = first[0]
            action(subject)
