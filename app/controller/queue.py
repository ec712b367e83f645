"""Work by key: one handler call at a time for each key, any number of keys at once, so that no key waits on another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

import structlog

from app.obs import metrics

K = TypeVar("K", bound=Hashable)

RETRY_FIRST = 1.0
RETRY_MAX = 60.0

log = structlog.get_logger()


class KeyQueue(Generic[K]):
    """``add`` asks for a call of the handler; asking again before it starts changes nothing, while it runs once more.

    A handler that raises is logged and called again after 1 s, 2 s … 60 s; other keys do not notice. One that is
    costly lets its key ``rest``, so that a stream of requests becomes a few calls.
    """

    def __init__(self, handler: Callable[[K], Awaitable[None]]) -> None:
        self._handler = handler
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._rests: dict[K, float] = {}
        self._asked: dict[K, float] = {}
        """Keys that wait to be handled, each with the loop's time since when."""
        self._failures: dict[K, int] = {}

    async def run(self) -> None:
        """Serve keys until cancelled. Keys added before that are dropped: the caller adds all of them at a start."""
        metrics.QUEUE_DEPTH.set_function(lambda: len(self._asked))
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    await asyncio.Event().wait()
                finally:
                    self._tasks = None  # a group that ends takes no more, while what it ends may still add
        finally:
            self._drop_all()

    def add(self, key: K) -> None:
        """Handle the key as soon as may be."""
        if self._tasks is None:
            return
        now = asyncio.get_running_loop().time()
        self._asked.setdefault(key, now)
        if key in self._running:
            return  # it is handled again when that ends, if it has begun
        if (rested := self._rests.get(key)) and rested > now:
            self.add_at(key, rested)
        else:
            self._rests.pop(key, None)
            self._cancel_timer(key)
            self._running.add(key)
            self._tasks.create_task(self._serve(key), name=f"reconcile {key}")

    def add_at(self, key: K, when: float) -> None:
        """Handle the key at the loop's time ``when`` (seconds), unless it is due sooner anyway."""
        timer = self._timers.get(key)
        if self._tasks is None or (timer and timer.when() <= when):
            return
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_at(when, self._due, key)

    def rest(self, key: K, until: float) -> None:
        """Do not handle the key again before the loop's time ``until`` (seconds)."""
        self._rests[key] = until

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run work beside the handlers, to be cancelled with them; what it raises is logged and harms nobody."""
        if self._tasks is None:
            work.close()
            return
        task = self._tasks.create_task(_guard(work, name), name=name)
        task.add_done_callback(lambda _: work.close())  # it may have been cancelled before it began

    async def _serve(self, key: K) -> None:
        try:
            await self._call(key)
        finally:
            self._running.discard(key)
        if key in self._asked:
            self.add(key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    async def _call(self, key: K) -> None:
        metrics.QUEUE_SECONDS.observe(asyncio.get_running_loop().time() - self._asked.pop(key))
        try:
            await self._handler(key)
            self._failures.pop(key, None)
        except Exception:  # one bad object never stops another
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(RETRY_MAX, RETRY_FIRST * 2.0 ** (failures - 1))
            log.exception("reconcile failed", pool=str(key), retry_in_seconds=delay)
            self.add_at(key, asyncio.get_running_loop().time() + delay)

    def _cancel_timer(self, key: K) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()

    def _drop_all(self) -> None:
        for key in list(self._timers):
            self._cancel_timer(key)
        self._running.clear()
        self._rests.clear()
        self._failures.clear()
        self._asked.clear()


async def _guard(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception:
        log.exception("background work failed", work=name)
