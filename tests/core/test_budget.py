"""Work that comes now and then waits for nothing; a stream of it gets its share and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.budget import Budget, Crowd


def budget() -> Budget:
    return Budget(share=0.1, credit=0.05, patience=0.5)


def test_what_the_credit_covers_does_not_wait() -> None:
    spending = budget()
    assert spending.spend(0.02, now=10.0) == 10.0
    assert spending.spend(0.03, now=10.0) == 10.0
    assert spending.spend(0.01, now=10.0) == pytest.approx(10.1)


def test_the_credit_is_earned_again() -> None:
    spending = budget()
    spending.spend(0.05, now=0.0)
    assert spending.spend(0.05, now=0.5) == 0.5


def test_no_wait_is_longer_than_patience_and_one_heavy_piece_of_work_is_forgotten_in_time() -> None:
    spending = budget()
    assert spending.spend(60.0, now=0.0) == pytest.approx(0.5)
    assert spending.spend(0.01, now=1.0) == 1.0


@given(st.lists(st.floats(0.001, 0.02), min_size=200, max_size=200))
def test_a_stream_takes_its_share(works: list[float]) -> None:
    spending, now = budget(), 0.0
    for seconds in works:
        now = spending.spend(seconds, now=now + seconds)
    assert sum(works) <= 0.05 + 0.1 * now + max(works)


def test_many_streams_take_one_share_together() -> None:
    streams, now = [budget() for _ in range(4)], 0.0
    for _ in range(200):
        now = max(stream.spend(0.005, now=now, crowd=4) for stream in streams)
    spent = 200 * 4 * 0.005
    assert spent <= 4 * 0.05 + 0.1 * now + 0.02


def test_the_crowd_is_who_has_worked_within_a_second() -> None:
    crowd = Crowd()
    assert [crowd.joined_by(who, now=now) for who, now in (("a", 0.0), ("b", 0.5), ("a", 0.6))] == [1, 2, 2]
    assert crowd.joined_by("c", now=1.55) == 2  # b has left, a worked again meanwhile
    assert crowd.joined_by("c", now=9.0) == 1
