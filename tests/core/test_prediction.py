"""Predicted warmth, checked against a simulated pool: does the share of hits come out as the model says?

The simulation is of events with a fixed seed: Poisson arrivals, each takes a slot for good, replacements join after a
random time; sessions wait in a queue for the next slot. A share p of n arrivals has a standard error of about
sqrt(p (1 - p) / n), here 0.001 for 0.99; hits come bunched, so the tolerance is ten times that.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.basestock import Demand
from app.core.prediction import JOIN_DEFAULT, Bound, Observations, Prediction, choose, restored

ARRIVALS = 10_000
TOLERANCE = 0.01


class SimulatedPool:
    """A pool that keeps ``min_idle`` slots ready or under way, with agents of so many slots."""

    def __init__(self, *, slots: int, join: Callable[[], float]) -> None:
        self.slots, self.join = slots, join
        self.free = self.position = 0
        self.joins: list[tuple[float, float]] = []

    def refill(self, min_idle: int, now: float) -> None:
        while self.position < min_idle:
            self.position += self.slots
            seconds = self.join()
            heapq.heappush(self.joins, (now + seconds, seconds))

    def joined(self, now: float) -> Iterator[float]:
        """The join times of agents that join until now."""
        while self.joins and self.joins[0][0] <= now:
            self.free += self.slots
            yield heapq.heappop(self.joins)[1]

    def take(self) -> bool:
        """A session arrives; whether it finds a slot at once."""
        self.free, self.position = self.free - 1, self.position - 1
        return self.free >= 0


@pytest.mark.parametrize(
    ("slots", "stock", "varies"), [(1, 8, True), (1, 5, False), (3, 5, False), (3, 8, False), (8, 2, False)]
)
def test_the_model_gives_the_share_of_hits_of_a_simulated_pool(slots: int, stock: int, varies: bool) -> None:
    chance = random.Random(7)
    pool = SimulatedPool(slots=slots, join=lambda: chance.expovariate(1 / 20) if varies else 20.0)
    now, hits = 0.0, 0
    for _ in range(3 * ARRIVALS):
        pool.refill(stock, now)
        now += chance.expovariate(0.2)
        list(pool.joined(now))
        hits += pool.take()
    assert hits / (3 * ARRIVALS) == pytest.approx(Demand(0.2 * 20, slots=slots).hit_rate(stock), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("target", "per_second", "slots"), [(0.9, 0.05, 1), (0.95, 0.5, 1), (0.99, 0.2, 1), (0.99, 2.0, 1), (0.95, 0.3, 4)]
)
def test_predicting_reaches_the_target_without_waste_or_flapping(target: float, per_second: float, slots: int) -> None:
    chance = random.Random(11)
    pool = SimulatedPool(slots=slots, join=lambda: chance.uniform(10, 40))
    seen, now, hits = Observations(at=0.0), 0.0, 0
    warm_up = 2 * 3600.0
    chosen: list[int] = []
    while len(chosen) < ARRIVALS:
        seen, prediction = choose(seen, target=target, minimum=0, maximum=1000, slots=slots, now=now)
        pool.refill(prediction.min_idle, now)
        now += chance.expovariate(per_second)
        for seconds in pool.joined(now):
            seen = seen.joined(seconds, now=now)
        hit = pool.take()
        seen = seen.arrived(1, now=now)
        if now > warm_up:
            hits += hit
            chosen.append(prediction.min_idle)
    assert hits / ARRIVALS >= target - TOLERANCE
    needed = Demand(per_second * 25, slots=slots).stock(target, limit=1000)
    assert sum(chosen) / ARRIVALS <= 1.2 * needed + 1
    steps = [b - a for a, b in pairwise(chosen) if a != b]
    turns = sum((a > 0) != (b > 0) for a, b in pairwise(steps))
    assert turns / ((now - warm_up) / 3600) <= 2, "turns an hour"


def steady(per_minute: float, *, hours: float = 3, seconds: float = 30) -> Observations:
    """Regular arrivals for so long, seen until then."""
    seen = Observations(at=0.0).joined(seconds, now=0.0)
    for i in range(1, int(per_minute * 60 * hours) + 1):
        seen = seen.arrived(1, now=i * 60 / per_minute)
    return seen


def predict(seen: Observations, *, target: float = 0.99, minimum: int = 1, maximum: int = 50) -> Prediction:
    return choose(seen, target=target, minimum=minimum, maximum=maximum, slots=1, now=seen.at)[1]


def test_a_burst_raises_it_within_a_minute_and_quiet_lowers_it_slowly() -> None:
    seen, before = choose(steady(1), target=0.99, minimum=1, maximum=50, slots=1, now=3 * 3600)
    for _ in range(30):
        seen = seen.arrived(1, now=seen.at + 2)
    seen, burst = choose(seen, target=0.99, minimum=1, maximum=50, slots=1, now=seen.at)
    assert burst.min_idle >= 2 * before.min_idle
    values, times = [burst.min_idle], [seen.at]
    while (now := burst.next_at) is not None:
        seen, burst = choose(seen, target=0.99, minimum=1, maximum=50, slots=1, now=now)
        values.append(burst.min_idle)
        times.append(now)
    assert values == sorted(values, reverse=True), "it never rises by itself"
    assert values[1] >= values[0] - 1, "a minute of quiet means little"
    assert (values[-1], burst.bound) == (1, Bound.TARGET)
    half = times[next(i for i, value in enumerate(values) if value < before.min_idle)]
    assert half - times[0] > 1200


def test_bounds_and_what_is_said_of_them() -> None:
    seen = steady(10)
    free = predict(seen)
    assert (free.min_idle, free.bound) == (12, Bound.TARGET)
    assert str(free) == (
        "12 slots are kept idle, the fewest for targetHitRate 0.99: 10 sessions arrive a minute,"
        " an agent joins in 30 s, and 99.45% should find a slot at once"
    )
    low = predict(seen, minimum=20)
    assert (low.min_idle, low.bound, low.next_at) == (20, Bound.MINIMUM, None)
    high = predict(seen, maximum=6)
    assert (high.min_idle, high.bound) == (6, Bound.MAXIMUM)
    assert "6 slots are kept idle, the maximum, though targetHitRate 0.99 needs more" in str(high)
    assert high.hit_rate == high.hit_rate_at_maximum > high.hit_rate_at_minimum
    assert predict(seen, minimum=4, maximum=2).min_idle == 4, "a schedule may ask for more than maxIdle"
    assert predict(msgspec.structs.replace(seen, chosen=13)).bound is Bound.HELD
    assert predict(msgspec.structs.replace(seen, chosen=40)).min_idle == 14


def test_before_anything_is_known_the_minimum_holds() -> None:
    nothing = predict(Observations(at=5.0), minimum=3)
    assert (nothing.min_idle, nothing.bound, nothing.next_at) == (3, Bound.NO_ARRIVALS, None)
    assert str(nothing) == "3 slots are kept idle, the minimum: hardly any sessions arrive"
    assert nothing.join_seconds == JOIN_DEFAULT
    first = predict(Observations(at=5.0).arrived(1, now=5.0), minimum=0)
    assert first.arrivals_per_minute < 1, "one session is no rate of one a second"
    later, _ = choose(Observations(at=0.0).arrived(1, now=1.0), target=0.99, minimum=0, maximum=9, slots=1, now=1.0)
    assert choose(later, target=0.99, minimum=0, maximum=9, slots=1, now=86400.0)[1].min_idle == 0


def test_a_new_leader_goes_on_from_the_status() -> None:
    told = predict(steady(10))
    seen = restored(per_minute=told.arrivals_per_minute, join_seconds=told.join_seconds, chosen=told.min_idle, now=77.0)
    assert predict(seen).min_idle == told.min_idle
    for i in range(40 * 60):
        seen = seen.arrived(1, now=77.0 + i)
    assert predict(seen).arrivals_per_minute > 45, "what it sees itself soon outweighs the past"


def test_join_times_are_a_mean_that_fades_with_time_but_never_hangs_on_one() -> None:
    seen = Observations(at=0.0).joined(10, now=0).joined(20, now=1)
    assert seen.join_seconds == 15
    for i in range(1000):
        seen = seen.joined(50, now=i)
    assert seen.join_seconds == pytest.approx(50, abs=1)
    assert seen.joined(1000, now=1000).join_seconds < 53, "one of about 600 that count"
    assert seen.joined(260, now=86400).join_seconds == pytest.approx(60, abs=0.1), "a day later one of 21"


shares = st.floats(0.01, 0.9999)


@given(load=st.floats(0, 5000), slots=st.integers(1, 40), one=shares, other=shares, limit=st.integers(0, 9000))
def test_a_higher_target_never_needs_less(load: float, slots: int, one: float, other: float, limit: int) -> None:
    demand = Demand(load, slots=slots)
    low, high = sorted((one, other))
    stock = demand.stock(low, limit=limit)
    assert stock <= demand.stock(high, limit=limit) <= limit
    assert stock == limit or demand.hit_rate(stock) >= low
    assert stock == 0 or demand.hit_rate(stock - 1) < low


@given(
    gaps=st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 100), st.floats(0, 1000)), max_size=20),
    targets=st.tuples(shares, shares),
    bounds=st.tuples(st.integers(0, 50), st.integers(0, 50)),
    slots=st.integers(1, 8),
)
def test_whatever_is_seen_the_value_is_within_its_bounds_and_rises_with_the_target(
    gaps: list[tuple[float, int, float]], targets: tuple[float, float], bounds: tuple[int, int], slots: int
) -> None:
    seen, (minimum, maximum) = Observations(at=0.0), sorted(bounds)
    for gap, sessions, seconds in gaps:
        seen = seen.joined(seconds, now=seen.at).arrived(sessions, now=seen.at + gap)
        found = [
            choose(seen, target=target, minimum=minimum, maximum=maximum, slots=slots, now=seen.at)
            for target in sorted(targets)
        ]
        values = [prediction.min_idle for _, prediction in found]
        assert minimum <= values[0] <= values[1] <= maximum
        assert all(0 <= prediction.hit_rate <= 1 and str(prediction) for _, prediction in found)
        seen = found[0][0]
