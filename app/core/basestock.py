"""The queueing model behind predicted warmth: how often a stock of idle slots meets a Poisson demand."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate

REACH = 9.0
"""Standard deviations around the mean outside which the Poisson distribution is taken as 0 or 1 (to about 1e-15)."""


class Demand:
    """The sessions that arrive while a replacement is under way, Poisson with this mean; an agent brings ``slots``."""

    def __init__(self, mean: float, *, slots: int = 1) -> None:
        self.mean, self.slots = mean, slots
        spread = REACH * math.sqrt(mean) + 20
        self._low = max(0, math.floor(mean - spread))
        self._sums = list(accumulate(self._terms(math.ceil(mean + spread)))) if mean > 0 else [1.0]

    def _terms(self, high: int) -> list[float]:
        first = math.exp(self._low * math.log(self.mean) - self.mean - math.lgamma(self._low + 1))
        ratios = (self.mean / n for n in range(self._low + 1, high + 1))
        return list(accumulate(ratios, lambda term, ratio: term * ratio, initial=first))

    def at_most(self, n: int) -> float:
        """P(N ≤ n)."""
        if n < self._low:
            return 0.0
        return min(1.0, self._sums[n - self._low]) if n - self._low < len(self._sums) else 1.0

    def hit_rate(self, stock: int) -> float:
        """The share of sessions that find a slot at once while ``stock`` or more are kept idle or under way.

        That number is between stock and stock + slots - 1, each equally often: the mean of P(N ≤ stock - 1 + j).
        """
        return min(1.0, max(0.0, (self._total(stock + self.slots - 2) - self._total(stock - 2)) / self.slots))

    def stock(self, target: float, *, limit: int) -> int:
        """The smallest that reaches the target, or ``limit`` if none up to there does."""
        return bisect_left(range(limit), target, key=self.hit_rate)

    def _total(self, n: int) -> float:
        """P(N ≤ 0) + … + P(N ≤ n)."""
        return (n + 1) * self.at_most(n) - self.mean * self.at_most(n - 1) if n >= 0 else 0.0
