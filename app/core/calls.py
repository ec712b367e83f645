"""Whose API call is next: a bounded number under way, shared between pools and between kinds of calls.

Kinds share by weight (stride scheduling), so that none starves another; within a kind pools take turns. A pool may hold
a multiple of the slots that are free and no more, so that some stay free for others even when all its calls hang
(source: dynamic thresholds, Choudhury and Hahne 1998). No call costs more with more pools or more that wait.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
C = TypeVar("C")

SHARE = 3
"""Slots that one pool may hold for each that is free: of 384 it gets at most 288."""
HINTS_PART = 8
"""One in so many slots, at most, is for hints."""
PAUSE = 1.0
"""Seconds that an overloaded API server is left alone when it names no time, and between two halvings."""
PAUSE_MAX = 30.0


class Kind(IntEnum):
    """In the order in which they go when all have had their share."""

    URGENT = 0
    """Creations that sessions wait for."""
    REMOVE = 1
    CREATE = 2
    HINT = 3
    """Annotations that help others decide."""


WEIGHTS = (12, 4, 4, 1)
"""Of the calls started while all kinds wait, by kind."""


_KINDS = tuple(Kind)


class Taken(NamedTuple, Generic[K, C]):
    """A call that is under way until ``Calls.done``."""

    pool: K
    kind: Kind
    call: C


class Calls(Generic[K, C]):
    """Calls that wait, and how many are under way: never more than ``limit``, which may change at any time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._waiting: list[OrderedDict[K, deque[C]]] = [OrderedDict() for _ in Kind]
        self._held: dict[K, int] = {}
        self._hints = 0
        self._clock = 0.0
        self._due = [0.0 for _ in Kind]
        """When each kind is due, on a clock of its own that each call moves by one over the weight."""

    def __len__(self) -> int:
        """How many wait."""
        return sum(len(calls) for pools in self._waiting for calls in pools.values())

    def add(self, pool: K, kind: Kind, call: C) -> None:
        pools = self._waiting[kind]
        if not pools:
            self._due[kind] = max(self._due[kind], self._clock)
        pools.setdefault(pool, deque()).append(call)

    def take(self) -> Taken[K, C] | None:
        """The next call, which is under way from now on; None if none may start now."""
        if self.in_flight >= self.limit:
            return None
        kinds = [kind for kind in _KINDS if self._waiting[kind]]
        if len(kinds) > 1:
            kinds.sort(key=self._due.__getitem__)
        for kind in kinds:
            if (pool := self._next_pool(kind)) is not None:
                return Taken(pool, kind, self._start(pool, kind))
        return None

    def done(self, pool: K, kind: Kind) -> None:
        """A call of this pool is no longer under way."""
        self.in_flight -= 1
        self._hints -= kind is Kind.HINT
        self._held[pool] -= 1
        if not self._held[pool]:
            del self._held[pool]

    def withdraw(self, pool: K, *kinds: Kind) -> list[C]:
        """The pool's calls of these kinds that wait, which are forgotten."""
        return [call for kind in kinds for call in self._waiting[kind].pop(pool, ())]

    def clear(self) -> list[C]:
        """All calls that wait, which are forgotten."""
        return [call for kind in Kind for pool in list(self._waiting[kind]) for call in self.withdraw(pool, kind)]

    def _next_pool(self, kind: Kind) -> K | None:
        """Passes over pools that hold their share: as each has calls under way, they are fewer than ``limit``."""
        if kind is Kind.HINT and self._hints >= max(1, self.limit // HINTS_PART):
            return None
        most = SHARE * (self.limit - self.in_flight)
        for pool in self._waiting[kind]:
            if self._held.get(pool, 0) < most:
                return pool
        return None

    def _start(self, pool: K, kind: Kind) -> C:
        pools = self._waiting[kind]
        call = pools[pool].popleft()
        if pools[pool]:
            pools.move_to_end(pool)
        else:
            del pools[pool]
        self._clock = max(self._clock, self._due[kind])
        self._due[kind] = self._clock + 1 / WEIGHTS[kind]
        self.in_flight += 1
        self._hints += kind is Kind.HINT
        self._held[pool] = self._held.get(pool, 0) + 1
        return call


class Throttle:
    """How many calls an API server takes at once: halved when it is overloaded, one more for each round that it took.

    Times are monotonic seconds. Calls that were under way together halve it once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._halved_at = float("-inf")
        self.paused_until = float("-inf")

    @property
    def limit(self) -> int:
        return int(self._limit)

    def overloaded(self, *, now: float, retry_after: float | None) -> None:
        """The API server did not take a call, and may have said in how many seconds to come again."""
        pause = PAUSE if retry_after is None else min(retry_after, PAUSE_MAX)
        self.paused_until = max(self.paused_until, now + pause)
        if now >= self._halved_at + PAUSE:
            self._halved_at = now
            self._limit = max(1.0, self._limit / 2)

    def taken(self) -> None:
        """The API server carried out, or refused for good, a call."""
        if self._limit < self._most:
            self._limit = min(float(self._most), self._limit + 1 / self._limit)
