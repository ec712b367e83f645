"""Which agent takes which waiting session: sessions by priority, then arrival; agents so that the others can go."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Hashable)
A = TypeVar("A", bound=Hashable)

Rank = tuple[float, ...]

SLACK = 64
"""Entries out of date that a heap may hold beyond as many as are valid, before it is made anew."""


class Ranking(Generic[K]):
    """Keys in the order of their ranks, the lowest first; of equal ranks the one set first. O(log n) a call."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int, K]] = []
        self._valid: dict[K, int] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._valid)

    def __contains__(self, key: K) -> bool:
        return key in self._valid

    def __iter__(self) -> Iterator[K]:
        """Every key, in no order that means anything."""
        return iter(list(self._valid))

    def set(self, key: K, rank: Rank) -> None:
        """Enter the key, or move it to another rank."""
        self._serial += 1
        self._valid[key] = self._serial
        heapq.heappush(self._heap, (rank, self._serial, key))
        if len(self._heap) > 2 * len(self._valid) + SLACK:
            self._heap = [entry for entry in self._heap if self._is_valid(entry)]
            heapq.heapify(self._heap)

    def discard(self, key: K) -> None:
        self._valid.pop(key, None)

    def first(self) -> tuple[K, Rank] | None:
        while self._heap and not self._is_valid(self._heap[0]):
            heapq.heappop(self._heap)
        return (self._heap[0][2], self._heap[0][0]) if self._heap else None

    def _is_valid(self, entry: tuple[Rank, int, K]) -> bool:
        return self._valid.get(entry[2]) == entry[1]


def session_rank(*, priority: int, arrival: int) -> Rank:
    """The highest priority first, then who came first. A session that a start failed for keeps its arrival."""
    return (-priority, arrival)


def agent_rank(*, slots: int, sessions: int, since: float) -> Rank | None:
    """None without a free slot. The fullest agent first, then the one idle since the latest: older ones may decay.

    ``since`` as in AgentView.
    """
    free = slots - sessions
    if free <= 0:
        return None
    return (0, free, -since) if sessions else (1, 0, -since)


def match(sessions: Ranking[S], agents: Ranking[A]) -> tuple[S, A] | None:
    """The next session to start and the agent to start it on; None when there is nobody to wait or to serve."""
    session, agent = sessions.first(), agents.first()
    return (session[0], agent[0]) if session and agent else None
