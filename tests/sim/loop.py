"""An asyncio event loop whose time is a number: it jumps to the next timer, and nothing depends on the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

RESOLUTION = 1e-9
"""Seconds by which an event loop calls timers too early."""


class _Task(asyncio.Task[Any]):
    """Sets of tasks are in the same order each time, wherever in memory the tasks are."""

    _number: int

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """No threads, no sockets, no clock. ``advance`` runs what is due within so many virtual seconds."""

    def __init__(self, start: float = 1000.0) -> None:
        super().__init__()
        self._now = start
        self._selector = self
        self._clock_resolution = RESOLUTION
        self._tasks_made = 0
        self.set_task_factory(self._make_task)
        self._scheduled: list[asyncio.TimerHandle]  # BaseEventLoop's heap

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Run until that much later; what becomes ready at the last instant may be left for the next call."""
        self.call_at(self._now + seconds, self.stop)
        asyncio.set_event_loop(self)
        self.run_forever()

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        self._tasks_made += 1
        number = self._tasks_made
        task = _Task.__new__(_Task)
        task._number = number
        task.__init__(coroutine, loop=loop, **options)  # type: ignore[misc]
        return task

    def do(self, call: Callable[..., Any], *args: Any) -> None:
        """Call it inside the loop; raises what it raises."""
        raised: list[BaseException] = []

        def guarded() -> None:
            try:
                call(*args)
            except Exception as error:
                raised.append(error)

        self.call_soon(guarded)
        self.advance(0.0)
        if raised:
            raise raised[0]

    def later(self, seconds: float, call: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        return self.call_at(self._now + seconds, call, *args)

    # What BaseEventLoop asks of a selector.

    def select(self, timeout: float | None) -> tuple[()]:
        """Nothing ever arrives from outside; waiting means that the time comes."""
        if timeout is None:
            raise RuntimeError("the virtual loop has nothing to wait for")
        if self._scheduled:
            due = self._scheduled[0].when()
            if timeout > 0 or due <= self._now + RESOLUTION:  # what is as good as due will be called now
                self._now = max(self._now, due)
        return ()

    def _process_events(self, event_list: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
