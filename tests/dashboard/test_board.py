"""Who changed since when, without a look at all the others."""

from __future__ import annotations

from typing import Any

import msgspec

from app.controller.cache import PoolCache
from app.dashboard import board as boards
from app.dashboard.board import Board, Changes
from app.model.agentpool import AgentPool
from app.model.meta import NamespacedName
from tests.dashboard.serving import manifest

A, B, C = (NamespacedName("n", name) for name in "abc")


def pool(key: NamespacedName, **counts: Any) -> AgentPool:
    return msgspec.convert(manifest(key, **counts), AgentPool)


def test_only_what_changed_since_then_latest_first() -> None:
    changes = Changes()
    for key in (A, B, C, A):
        changes.note(key)
    assert changes.since(0) == [A, C, B]
    assert changes.since(2) == [A, C]
    assert changes.since(changes.now()) == []
    assert (changes.of(A), changes.of(B)) == (4, 2)


def test_who_asks_after_too_long_is_told_to_look_at_all() -> None:
    changes = Changes()
    for key in (A, B):
        changes.note(key)
    changes.forget([A])
    assert changes.since(1) is None
    assert changes.since(2) == []
    changes.note(A)
    assert changes.since(2) == [A]


def test_a_history_begins_with_what_was_there_and_ends_with_its_pool() -> None:
    cache, now = PoolCache(), 1000.0
    cache.pool_changed(None, pool(A, runningReplicas=1))
    board = Board(cache, wall=lambda: now)
    with board.listening():
        now = 1100.0
        cache.pool_changed(pool(A), pool(A, runningReplicas=2))
        assert board.history(A).columns()["at"] == [1000, 1100]
        assert board.history(A).columns()["running"] == [1, 2]
        cache.pool_changed(pool(A), None)
        assert board.history(A).columns()["at"] == []
        assert board.rows.since(0) == [A]
        board.touched(A)  # what is gone has no contents
        assert board.contents.since(board.rows.now()) == []
    cache.pool_changed(None, pool(B))
    assert board.rows.of(B) == 0


def test_pools_that_come_and_go_leave_nothing_behind() -> None:
    cache = PoolCache()
    board = Board(cache)
    with board.listening():
        cache.pool_changed(None, pool(A))
        seen = board.rows.now()
        for index in range(boards.GONE_LIMIT + 1):
            key = NamespacedName("n", f"p{index}")
            cache.pool_changed(None, pool(key))
            cache.pool_changed(pool(key), None)
        assert board.rows.since(seen) is None
        assert board.rows.since(board.rows.now()) == []
        assert len(board.rows._latest) == len(board.contents._latest) == 1
        assert len(board._histories) == 1
