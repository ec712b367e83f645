"""Work by key: never twice at once for one key, never one key waiting for another."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from app.controller import queue as queues
from app.controller.queue import KeyQueue
from app.obs import metrics


@asynccontextmanager
async def running(handler: Callable[[str], Awaitable[None]]) -> AsyncIterator[KeyQueue[str]]:
    queue: KeyQueue[str] = KeyQueue(handler)
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(0)
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_added_while_its_handler_runs_is_handled_once_more_and_not_at_the_same_time() -> None:
    calls, at_once, gate, done = 0, 0, asyncio.Event(), asyncio.Event()

    async def handler(_: str) -> None:
        nonlocal calls, at_once
        calls += 1
        at_once += 1
        assert at_once == 1
        await gate.wait()
        at_once -= 1
        if calls == 2:
            done.set()

    async with running(handler) as queue:
        queue.add("a")
        await asyncio.sleep(0)
        for _ in range(5):
            queue.add("a")
        gate.set()
        await done.wait()
        await asyncio.sleep(0)
    assert calls == 2


async def test_how_many_wait_and_for_how_long_is_measured() -> None:
    def waiting() -> float | None:
        return metrics.REGISTRY.get_sample_value("velda_reconcile_queue_depth")

    def waited(which: str) -> float:
        return metrics.REGISTRY.get_sample_value(f"velda_reconcile_queue_seconds_{which}") or 0.0

    gate, calls, done = asyncio.Event(), 0, asyncio.Event()

    async def handler(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            done.set()
        await gate.wait()

    count, seconds = waited("count"), waited("sum")
    async with running(handler) as queue:
        queue.add("a")
        assert waiting() == 1
        await asyncio.sleep(0)
        assert (waiting(), waited("count") - count) == (0, 1)
        queue.add("a")
        queue.add("a")
        assert waiting() == 1
        queue.rest("a", asyncio.get_running_loop().time() + 0.05)
        gate.set()
        await done.wait()
        assert (waiting(), waited("count") - count) == (0, 2)
    assert waited("sum") - seconds >= 0.05


async def test_a_key_does_not_wait_for_another() -> None:
    served = asyncio.Event()

    async def handler(key: str) -> None:
        if key == "slow":
            await asyncio.Event().wait()
        served.set()

    async with running(handler) as queue:
        queue.add("slow")
        queue.add("quick")
        await served.wait()


async def test_a_handler_that_raises_is_called_again_and_others_do_not_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "RETRY_FIRST", 0.001)
    attempts, good, other = 0, asyncio.Event(), asyncio.Event()

    async def handler(key: str) -> None:
        nonlocal attempts
        if key == "other":
            other.set()
            return
        attempts += 1
        if attempts < 3:
            raise RuntimeError("no")
        good.set()

    async with running(handler) as queue:
        queue.add("bad")
        queue.add("other")
        await other.wait()
        await good.wait()
    assert attempts == 3


async def test_of_two_times_the_earlier_one_counts() -> None:
    handled = asyncio.Queue[float]()
    loop = asyncio.get_running_loop()

    async def handler(_: str) -> None:
        handled.put_nowait(loop.time())

    async with running(handler) as queue:
        now = loop.time()
        queue.add_at("a", now + 3600)
        queue.add_at("a", now + 0.01)
        queue.add_at("a", now + 7200)
        assert await handled.get() >= now + 0.01


async def test_a_key_that_rests_is_handled_once_for_all_that_came_meanwhile() -> None:
    handled = asyncio.Queue[float]()
    loop = asyncio.get_running_loop()
    rest = 0.05

    async def handler(key: str) -> None:
        handled.put_nowait(loop.time())
        queue.rest(key, loop.time() + rest)
        if handled.qsize() == 1:
            queue.add(key)  # as if something had happened while it ran

    async with running(handler) as queue:
        queue.add("a")
        first = await handled.get()
        for _ in range(100):
            queue.add("a")
            queue.add_at("a", loop.time())
            await asyncio.sleep(0)
        assert handled.empty()
        assert await handled.get() >= first + rest
        assert handled.empty()


async def test_a_key_does_not_rest_for_another() -> None:
    handled = asyncio.Queue[str]()

    async def handler(key: str) -> None:
        queue.rest(key, asyncio.get_running_loop().time() + 3600)
        handled.put_nowait(key)

    async with running(handler) as queue:
        for key in "ab":
            queue.add(key)
            assert await handled.get() == key


async def test_spawned_work_that_raises_harms_nobody() -> None:
    handled = asyncio.Event()

    async def handler(_: str) -> None:
        handled.set()

    async def broken() -> None:
        raise RuntimeError("no")

    async with running(handler) as queue:
        queue.spawn(broken(), name="broken")
        await asyncio.sleep(0)
        queue.add("a")
        await handled.wait()


async def test_what_is_added_when_the_queue_does_not_run_is_dropped() -> None:
    async def handler(_: str) -> None:
        raise AssertionError("never called")

    async def work() -> None:
        raise AssertionError("never run")

    queue: KeyQueue[str] = KeyQueue(handler)
    queue.add("a")
    queue.add_at("a", 0)
    queue.spawn(work(), name="work")
    await asyncio.sleep(0)


async def test_what_is_added_while_the_queue_ends_is_dropped() -> None:
    """Work that is cancelled then may still ask for more of it."""
    queue: KeyQueue[str] = KeyQueue(lambda key: asyncio.sleep(0))
    asked = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            queue.add("a")
            asked.set()

    task = asyncio.create_task(queue.run())
    await asyncio.sleep(0)
    queue.spawn(work(), name="work")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asked.is_set()


async def test_work_that_never_began_is_closed() -> None:
    """Else Python warns of a coroutine that was never awaited, which is an error here."""
    queue: KeyQueue[str] = KeyQueue(lambda key: asyncio.sleep(0))
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(0)
    work = asyncio.sleep(0)
    queue.spawn(work, name="work")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED
