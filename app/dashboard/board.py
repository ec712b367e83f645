"""What happened to which pool last. An event costs the same however many pools there are and however many watch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.controller.cache import PoolCache
from app.core.status import mapping
from app.dashboard.history import History, sample
from app.model.meta import NamespacedName
from app.model.pod import Pod

GONE_LIMIT = 1000
"""Pools that are gone, of which it is remembered when."""


class Changes:
    """Pools in the order of their last change, which is numbered."""

    def __init__(self) -> None:
        self._latest: dict[NamespacedName, int] = {}
        self._number = 0
        self._forgotten = 0
        """The number of the last change that ``since`` may not know of any more."""

    def note(self, key: NamespacedName) -> None:
        self._number += 1
        self._latest.pop(key, None)
        self._latest[key] = self._number

    def now(self) -> int:
        """To be given to ``since`` later."""
        return self._number

    def of(self, key: NamespacedName) -> int:
        """The number of its last change; 0 for none."""
        return self._latest.get(key, 0)

    def since(self, number: int) -> list[NamespacedName] | None:
        """The pools that changed after that; None where it is not known any more."""
        if number < self._forgotten:
            return None
        changed = []
        for key in reversed(self._latest):
            if self._latest[key] <= number:
                break
            changed.append(key)
        return changed

    def forget(self, keys: list[NamespacedName]) -> None:
        """Whoever has not heard of them by now has to look at everything."""
        for key in keys:
            del self._latest[key]
        self._forgotten = self._number


class Board:
    """Of every pool in the cache: its history, and the last change of its row and of what is in it."""

    def __init__(self, cache: PoolCache, *, wall: Callable[[], float] = time.time) -> None:
        self.cache = cache
        self.rows = Changes()
        self.contents = Changes()
        """Of agents, pods and sessions as well."""
        self.wall = wall
        self._histories: dict[NamespacedName, History] = {}
        self._gone: dict[NamespacedName, None] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep it for as long as the block lasts."""
        with self.cache.listening(pool=self._pool_changed, pod=self._pod_changed):
            for key in self.cache.pool_keys():
                self._pool_changed(key)
            yield

    def touched(self, key: NamespacedName) -> None:
        """Agents or sessions of the pool have changed."""
        if self.cache.pool(key):
            self.contents.note(key)

    def history(self, key: NamespacedName) -> History:
        return self._histories.get(key) or History()

    def _pod_changed(self, key: NamespacedName, old: Pod | None, new: Pod | None) -> None:
        self.touched(key)

    def _pool_changed(self, key: NamespacedName) -> None:
        self.rows.note(key)
        self.contents.note(key)
        pool = self.cache.pool(key)
        if pool is None:
            self._forget(key)
            return
        self._gone.pop(key, None)
        if status := mapping(pool.status):
            self._histories.setdefault(key, History()).add(self.wall(), sample(status))

    def _forget(self, key: NamespacedName) -> None:
        self._histories.pop(key, None)
        self._gone[key] = None
        if len(self._gone) > GONE_LIMIT:
            gone, self._gone = list(self._gone), {}
            self.rows.forget(gone)
            self.contents.forget(gone)
