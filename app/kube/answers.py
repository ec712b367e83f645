"""The API server's answers, kept for seconds: equal questions at one time are asked once, and not too many at once.

What is in use is asked again before it is too old, so that only the first to ask waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from cachetools import TLRUCache

from app.kube.errors import ApiUnreachable

KEPT = 4096
"""Answers; those that were not needed for the longest time go first."""
AT_ONCE = 32
"""Questions that the API server has at one time; more wait."""
WAITING = 1024
"""Questions that wait or are asked; more get an error at once."""
TIMEOUT = 5.0
"""Seconds that a question may take, its wait included."""
RENEWED = 0.5
"""The part of its time after which an answer that is used is asked for again, beside its use."""

Answer = TypeVar("Answer")


class _Kept(NamedTuple, Generic[Answer]):
    answer: Answer
    seconds: float
    since: float


class Answers(Generic[Answer]):
    """``seconds`` says how long an answer holds, by ``clock``; errors are not kept."""

    def __init__(self, seconds: Callable[[Answer], float], *, clock: Callable[[], float], kept: int = KEPT) -> None:
        self._seconds = seconds
        self._clock = clock
        self._kept: TLRUCache[Hashable, _Kept[Answer]] = TLRUCache(
            kept, ttu=lambda _, kept, now: now + kept.seconds, timer=clock
        )
        self._asked: dict[Hashable, asyncio.Task[Answer]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """What was answered under ``key``, or else what ``ask`` brings. Raises ApiError."""
        kept = self._kept.get(key)
        if kept is None:
            # Who gives up leaves the question to the others.
            return await asyncio.shield(self._asked.get(key) or self._begin(key, ask))
        used_up = self._clock() >= kept.since + kept.seconds * RENEWED
        if used_up and key not in self._asked and len(self._asked) < WAITING:
            self._begin(key, ask)
        return kept.answer

    def _begin(self, key: Hashable, ask: Callable[[], Awaitable[Answer]]) -> asyncio.Task[Answer]:
        if len(self._asked) >= WAITING:
            raise ApiUnreachable(f"{WAITING} questions wait already, ask again later")
        task = self._asked[key] = asyncio.create_task(self._ask(key, ask))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _ask(self, key: Hashable, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            async with asyncio.timeout(TIMEOUT), self._turns:
                answer = await ask()
        except TimeoutError:
            raise ApiUnreachable(f"no answer within {TIMEOUT:.0f} s") from None
        finally:
            del self._asked[key]
        # The cache leaves what it has in place of an answer that does not hold at all.
        self._kept.pop(key, None)
        self._kept[key] = _Kept(answer, self._seconds(answer), self._clock())
        return answer
