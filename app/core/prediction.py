"""Predicted warmth: the minIdle that gives sessions a free slot at once as often as ``targetHitRate`` asks.

The pool is a base-stock system: each session takes a slot and its replacement is asked for at once. With Poisson
arrivals of rate λ and replacements that take L seconds on average, the number under way is Poisson with mean λ·L
whatever the distribution of L (Palm's theorem), so with S slots kept idle an arrival finds one with probability
P(N ≤ S - 1). S is the smallest that reaches the target.

Approximations: agents of k slots are asked for as soon as one slot is missing, so that S to S + k - 1 slots are ready
or under way, each equally often; that is exact if L does not vary. Slots that come back when sessions end are not
counted on, and arrivals more bunched than by chance are not foreseen: the fast estimate follows them.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from app.core.basestock import Demand

FAST, SLOW = 120.0, 3600.0
"""Half-lives in seconds of the two estimates of the arrival rate."""
NO_RATE = 1 / 86400
"""Sessions per second, one a day: less is none, and minIdle falls to its minimum."""
JOIN_DEFAULT = 30.0
JOIN_HALF_LIFE = 600.0
JOINS_KEPT = 20
"""Join times fade with that half-life, but as many as this count however old they are."""
HOLD = 1.25
"""A larger minIdle is kept while it would be right at up to this much more load, so that it does not flap."""
RECHECK = 60.0


class Bound(StrEnum):
    """What decided the value."""

    TARGET = "targetHitRate"
    HELD = "held"
    MINIMUM = "minIdle"
    MAXIMUM = "maxIdle"
    NO_ARRIVALS = "noArrivals"


class Fading(msgspec.Struct, frozen=True):
    """A count of arrivals and the seconds for which they were watched, both fading exponentially."""

    half_life: float
    count: float = 0.0
    watched: float = 0.0

    @property
    def memory(self) -> float:
        """The seconds watched after which as many fade as come."""
        return self.half_life / math.log(2)

    def later(self, seconds: float, arrivals: int = 0) -> Fading:
        left = 0.5 ** (seconds / self.half_life)
        watched = self.watched * left + self.memory * (1 - left)
        return Fading(self.half_life, self.count * left + arrivals, watched)

    def rate(self, *, errors: float = 0.0, at_least: float = 0.0) -> float:
        """Per second, less so many of its standard errors; as if watched for ``at_least`` seconds."""
        return max(0.0, self.count - errors * math.sqrt(self.count / 2)) / max(self.watched, at_least, 1.0)


class Observations(msgspec.Struct, frozen=True):
    """What was seen of one pool until ``at`` (monotonic seconds), and the minIdle chosen last."""

    at: float
    fast: Fading = Fading(FAST)
    slow: Fading = Fading(SLOW)
    join_seconds: float = JOIN_DEFAULT
    joins: float = 0.0
    joined_at: float = 0.0
    chosen: int | None = None

    def arrived(self, sessions: int, *, now: float) -> Observations:
        """With sessions asked for since the last call."""
        seconds = max(0.0, now - self.at)
        fast, slow = self.fast.later(seconds, sessions), self.slow.later(seconds, sessions)
        return msgspec.structs.replace(self, at=max(now, self.at), fast=fast, slow=slow)

    def joined(self, seconds: float, *, now: float) -> Observations:
        """With an agent that joined so many seconds after it was asked for."""
        left = 0.5 ** (max(0.0, now - self.joined_at) / JOIN_HALF_LIFE)
        joins = max(self.joins * left, min(self.joins, JOINS_KEPT)) + 1
        mean = self.join_seconds + (max(0.0, seconds) - self.join_seconds) / joins
        return msgspec.structs.replace(self, join_seconds=mean, joins=joins, joined_at=max(now, self.joined_at))

    @property
    def rate(self) -> float:
        """Sessions per second: the larger of both estimates, so that a burst raises it at once and it falls slowly.

        The fast one counts less its standard error, or chance alone would raise it above the slow one all the time.
        """
        floor = self.fast.memory
        return max(self.slow.rate(at_least=floor), self.fast.rate(errors=1.0, at_least=floor))


def restored(*, per_minute: float, join_seconds: float, chosen: int, now: float) -> Observations:
    """What a new leader goes on with, from the status: as if seen for half an hour, and soon outweighed."""
    watched = SLOW / 2
    slow = Fading(SLOW, count=per_minute / 60 * watched, watched=watched)
    return Observations(at=now, slow=slow, join_seconds=join_seconds, joins=1, chosen=chosen)


class Prediction(msgspec.Struct, frozen=True):
    """What was chosen and why; rates are rounded, so that a status made of them stays the same for a while.

    ``hit_rate``, ``hit_rate_at_minimum`` and ``…_maximum``: expected share of sessions that find a slot at once.
    ``next_at`` (monotonic seconds): when a smaller value may do; None while nothing but arrivals can change it.
    """

    min_idle: int
    bound: Bound
    target: float
    arrivals_per_minute: float
    join_seconds: float
    hit_rate: float
    minimum: int
    maximum: int
    hit_rate_at_minimum: float
    hit_rate_at_maximum: float
    next_at: float | None = None

    def __str__(self) -> str:
        if self.bound is Bound.NO_ARRIVALS:
            return f"{self.min_idle} slots are kept idle, the minimum: hardly any sessions arrive"
        why = {
            Bound.TARGET: f"the fewest for targetHitRate {self.target:.10g}",
            Bound.HELD: f"kept from a time of more load, above what targetHitRate {self.target:.10g} needs",
            Bound.MINIMUM: f"the minimum, more than targetHitRate {self.target:.10g} needs",
            Bound.MAXIMUM: f"the maximum, though targetHitRate {self.target:.10g} needs more",
        }
        return (
            f"{self.min_idle} slots are kept idle, {why[self.bound]}: {self.arrivals_per_minute:g} sessions arrive a"
            f" minute, an agent joins in {self.join_seconds:g} s, and {self.hit_rate:.2%} should find a slot at once"
        )


def choose(
    seen: Observations, *, target: float, minimum: int, maximum: int, slots: int, now: float
) -> tuple[Observations, Prediction]:
    """minIdle between the bounds (slots, both included) for the share ``target`` of hits with agents of ``slots``."""
    seen = seen.arrived(0, now=now)
    maximum = max(minimum, maximum)
    rate = seen.rate if seen.rate >= NO_RATE else 0.0
    load = rate * seen.join_seconds
    demand = Demand(load, slots=slots)
    needed = demand.stock(target, limit=maximum + 1) if rate else 0
    wanted = max(needed, min(seen.chosen or 0, _kept(demand, target=target, maximum=maximum))) if rate else 0
    chosen = min(max(wanted, minimum), maximum)
    prediction = Prediction(
        min_idle=chosen,
        bound=_bound(chosen, needed=needed, minimum=minimum, maximum=maximum) if rate else Bound.NO_ARRIVALS,
        target=target,
        arrivals_per_minute=_rounded(rate * 60),
        join_seconds=_rounded(seen.join_seconds),
        hit_rate=round(demand.hit_rate(chosen), 4),
        minimum=minimum,
        maximum=maximum,
        hit_rate_at_minimum=round(demand.hit_rate(minimum), 4),
        hit_rate_at_maximum=round(demand.hit_rate(maximum), 4),
        next_at=now + RECHECK if chosen > minimum else None,
    )
    return msgspec.structs.replace(seen, chosen=chosen), prediction


def _kept(demand: Demand, *, target: float, maximum: int) -> int:
    """The largest value that is not yet lowered."""
    return Demand(demand.mean * HOLD, slots=demand.slots).stock(target, limit=maximum)


def _bound(chosen: int, *, needed: int, minimum: int, maximum: int) -> Bound:
    if needed > maximum:
        return Bound.MAXIMUM
    if chosen > needed:
        return Bound.MINIMUM if chosen == minimum else Bound.HELD
    return Bound.TARGET


def _rounded(value: float) -> float:
    """To two significant digits."""
    return float(f"{value:.1e}")
