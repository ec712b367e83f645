"""A pool's last hour: what it keeps, and how much of it."""

from __future__ import annotations

import sys

from app.dashboard.history import COLUMNS, SPAN, STEP, History, sample

NOON = 1_764_072_000


def idle(count: int) -> dict[str, int]:
    return sample({"idleReplicas": count})


def test_steps_are_kept_where_something_changes() -> None:
    history = History()
    for at, count in ((0, 1), (11, 1), (600, 2), (3000, 2)):
        history.add(NOON + at, idle(count))
    columns = history.columns()
    assert (columns["at"], columns["idle"]) == ([NOON, NOON + 600], [1, 2])
    assert columns.keys() == {"at", *COLUMNS}


def test_of_changes_at_once_the_last_is_kept_whatever_the_clock_does() -> None:
    history = History()
    for at, count in ((0, 1), (1, 9), (2, 3), (-500, 4)):
        history.add(NOON + at, idle(count))
    assert (history.columns()["at"], history.columns()["idle"]) == ([NOON], [4])


def test_what_held_an_hour_ago_is_known_and_what_was_before_is_not() -> None:
    history = History()
    for at in range(0, 2 * SPAN, STEP):
        history.add(NOON + at, idle(at))
    times = history.columns()["at"]
    now = NOON + 2 * SPAN - STEP
    assert times[0] == now - SPAN
    assert len(times) == SPAN // STEP + 1


def test_a_pool_takes_ten_kilobytes_however_much_happens() -> None:
    history = History()
    for at in range(10 * SPAN):
        history.add(NOON + at, idle(at))
    arrays = [history._times, *history._columns.values()]
    assert sum(map(sys.getsizeof, arrays)) < 14_000


def test_a_status_may_hold_anything() -> None:
    odd = {
        "replicas": "3",
        "idleReplicas": -1,
        "runningReplicas": True,
        "pendingReplicas": 2**40,
        "unknownReplicas": None,
    }
    history = History()
    history.add(NOON, sample(odd))
    assert history.columns()["size"] == [0]
    assert history.columns()["pending"] == [2**32 - 1]
