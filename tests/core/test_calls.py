"""Whose call is next: bounded, fair between pools and kinds, nobody starved; fewer when the API server has too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.core.calls import HINTS_PART, PAUSE, PAUSE_MAX, SHARE, WEIGHTS, Calls, Kind, Taken, Throttle

LIMIT = 64


def served(calls: Calls[str, int]) -> Iterator[Taken[str, int]]:
    """One call at a time, each over before the next begins."""
    while taken := calls.take():
        calls.done(taken.pool, taken.kind)
        yield taken


def fill(calls: Calls[str, int], pool: str, kind: Kind, count: int) -> None:
    for number in range(count):
        calls.add(pool, kind, number)


def test_a_pool_with_a_thousand_calls_delays_another_pools_single_one_by_one_call() -> None:
    calls: Calls[str, int] = Calls(LIMIT)
    fill(calls, "big", Kind.CREATE, 1000)
    turns = served(calls)
    for _ in range(10):
        next(turns)
    calls.add("small", Kind.CREATE, 0)
    assert "small" in {next(turns).pool for _ in range(2)}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_pools_take_turns_and_each_is_served_in_its_own_order(counts: list[int]) -> None:
    calls: Calls[str, int] = Calls(LIMIT)
    for number, count in enumerate(counts):
        fill(calls, str(number), Kind.CREATE, count)
    left = dict(enumerate(counts))
    begun: Counter[str] = Counter()
    for taken in served(calls):
        assert taken.call == begun[taken.pool]
        begun[taken.pool] += 1
        left[int(taken.pool)] -= 1
        waiting = [begun[str(number)] for number, count in left.items() if count]
        assert max(begun.values()) - min(waiting, default=max(begun.values())) <= 1
    assert not any(left.values())


def test_sessions_that_wait_come_first_but_starve_nobody() -> None:
    calls: Calls[str, int] = Calls(LIMIT)
    for kind in Kind:
        fill(calls, "others", kind, 1000)
    turns = served(calls)
    assert next(turns).kind is Kind.URGENT
    kinds = Counter(next(turns).kind for _ in range(10 * sum(WEIGHTS)))
    for kind, weight in zip(Kind, WEIGHTS, strict=True):
        assert abs(kinds[kind] - 10 * weight) <= 1


@pytest.mark.parametrize("kind", list(Kind))
def test_a_kind_that_has_rested_gets_no_more_than_its_share(kind: Kind) -> None:
    """Nor does it wait for what others took while nothing of it was there."""
    calls: Calls[str, int] = Calls(LIMIT)
    other = Kind.REMOVE if kind is Kind.CREATE else Kind.CREATE
    fill(calls, "a", other, 1000)
    turns = served(calls)
    for _ in range(500):
        next(turns)
    fill(calls, "b", kind, 1000)
    period = WEIGHTS[kind] + WEIGHTS[other]
    kinds = Counter(next(turns).kind for _ in range(10 * period))
    assert abs(kinds[kind] - 10 * WEIGHTS[kind]) <= 1


def test_a_pool_whose_calls_all_hang_leaves_room_for_others() -> None:
    calls: Calls[str, int] = Calls(LIMIT)
    hanging = [f"hangs-{number}" for number in range(10)]
    for pool in hanging:
        fill(calls, pool, Kind.CREATE, 1000)
    while calls.take():
        pass
    assert calls.in_flight < LIMIT
    calls.add("good", Kind.CREATE, 0)
    taken = calls.take()
    assert taken is not None
    assert taken.pool == "good"


def test_one_pool_alone_gets_most_of_the_slots() -> None:
    calls: Calls[str, int] = Calls(LIMIT)
    fill(calls, "a", Kind.CREATE, 1000)
    while calls.take():
        pass
    assert calls.in_flight == LIMIT * SHARE // (SHARE + 1)


def test_hints_hold_few_slots_however_many_wait() -> None:
    calls: Calls[str, int] = Calls(LIMIT)
    for number in range(100):
        fill(calls, str(number), Kind.HINT, 10)
    while calls.take():
        pass
    assert calls.in_flight == LIMIT // HINTS_PART


def test_what_is_withdrawn_is_not_started() -> None:
    calls: Calls[str, int] = Calls(LIMIT)
    for pool in "ab":
        for kind in (Kind.CREATE, Kind.REMOVE):
            fill(calls, pool, kind, 2)
    assert calls.withdraw("a", Kind.CREATE, Kind.URGENT) == [0, 1]
    assert Counter((taken.pool, taken.kind) for taken in served(calls)) == {
        ("a", Kind.REMOVE): 2,
        ("b", Kind.CREATE): 2,
        ("b", Kind.REMOVE): 2,
    }
    fill(calls, "a", Kind.HINT, 3)
    assert calls.clear() == [0, 1, 2]
    assert not len(calls)


class Machine(RuleBasedStateMachine):
    """Any course of calls, answers and limits."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Calls[str, int] = Calls(4)
        self.waiting: Counter[tuple[str, Kind]] = Counter()
        self.under_way: list[Taken[str, int]] = []

    @rule(pool=st.sampled_from("abcdef"), kind=st.sampled_from(Kind), count=st.integers(1, 5))
    def add(self, pool: str, kind: Kind, count: int) -> None:
        fill(self.calls, pool, kind, count)
        self.waiting[pool, kind] += count

    @rule()
    def take(self) -> None:
        before = len(self.under_way)
        if taken := self.calls.take():
            assert before < self.calls.limit
            self.waiting[taken.pool, taken.kind] -= 1
            assert self.waiting[taken.pool, taken.kind] >= 0
            self.under_way.append(taken)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        taken = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.calls.done(taken.pool, taken.kind)

    @rule(limit=st.integers(1, 8))
    def change(self, limit: int) -> None:
        self.calls.limit = limit

    @invariant()
    def counts(self) -> None:
        assert self.calls.in_flight == len(self.under_way)
        assert len(self.calls) == self.waiting.total()

    @invariant()
    def nobody_without_a_call_is_kept_waiting(self) -> None:
        """A pool that has none under way starts one as soon as any slot is free, or is next to those who do."""
        busy = {taken.pool for taken in self.under_way}
        resting = {pool for (pool, kind), count in self.waiting.items() if count and kind is not Kind.HINT} - busy
        if resting and len(self.under_way) < self.calls.limit:
            taken = self.calls.take()
            assert taken is not None
            self.waiting[taken.pool, taken.kind] -= 1
            self.under_way.append(taken)

    def teardown(self) -> None:
        """All that waits is served in the end."""
        for taken in self.under_way:
            self.calls.done(taken.pool, taken.kind)
        assert sum(1 for _ in served(self.calls)) == self.waiting.total()


TestCalls = Machine.TestCase


def test_calls_refused_together_halve_the_limit_once() -> None:
    throttle = Throttle(LIMIT)
    for _ in range(LIMIT):
        throttle.overloaded(now=10.0, retry_after=None)
    assert (throttle.limit, throttle.paused_until) == (LIMIT // 2, 10.0 + PAUSE)
    throttle.overloaded(now=10.0 + PAUSE, retry_after=None)
    assert throttle.limit == LIMIT // 4


@pytest.mark.parametrize(("retry_after", "pause"), [(None, PAUSE), (0.0, 0.0), (5.0, 5.0), (3600.0, PAUSE_MAX)])
def test_the_time_that_the_server_names_is_kept_within_reason(retry_after: float | None, pause: float) -> None:
    throttle = Throttle(LIMIT)
    throttle.overloaded(now=10.0, retry_after=retry_after)
    assert throttle.paused_until == 10.0 + pause
    throttle.overloaded(now=10.0, retry_after=0.0)
    assert throttle.paused_until == 10.0 + pause


def test_the_limit_never_falls_below_one_and_grows_again_by_one_a_round() -> None:
    throttle = Throttle(LIMIT)
    for second in range(20):
        throttle.overloaded(now=float(second), retry_after=0.0)
    assert throttle.limit == 1
    rounds = 0
    while throttle.limit < LIMIT:
        rounds += 1
        for _ in range(throttle.limit):
            throttle.taken()
    assert LIMIT - 1 <= rounds <= 2 * LIMIT
    throttle.taken()
    assert throttle.limit == LIMIT
