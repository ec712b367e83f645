"""Hints are sent one at a time for a pod, not too often, and a bounded number at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from app.controller import hints as module
from app.controller.actuator import Answer
from app.controller.hints import AGAIN, AT_ONCE, INTERVAL, Hints
from app.controller.parts import Parts, PoolState, Subject
from app.core.hints import Hint
from app.core.reconcile import Memory
from app.kube.errors import ApiError
from app.model.agentpool import AgentPool
from app.model.meta import NamespacedName

KEY = NamespacedName("n", "p")
BUSY, IDLE = {"safe": "false"}, {"safe": "true"}


class Bench:
    """Stands for actuator and queue; time is the test's."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[tuple[str, dict[str, str], Answer]] = []
        self.wakes: list[float | None] = []
        parts = cast("Parts", type("Fake", (), {"actuator": self, "queue": self}))
        self._hints = Hints(parts)
        self._subject = Subject(KEY, AgentPool(), PoolState("u", Memory(started_at=0.0)))

    def annotate(self, pod: NamespacedName, annotations: dict[str, str], *, uid: str, pool: NamespacedName) -> Answer:
        answer: Answer = asyncio.get_running_loop().create_future()
        self.asked.append((pod.name, annotations, answer))
        assert (uid, pool) == (f"uid-{pod.name}", KEY)
        return answer

    def add(self, _: NamespacedName) -> None:
        self.wakes.append(None)

    def add_at(self, _: NamespacedName, when: float) -> None:
        self.wakes.append(when)

    def offer(self, **pods: dict[str, str]) -> list[str]:
        """The pods that are asked for now."""
        before = len(self.asked)
        self._hints.offer(self._subject, [Hint(name, f"uid-{name}", pods[name]) for name in pods])
        return [name for name, _, _ in self.asked[before:]]

    async def answer(self, error: ApiError | None = None) -> None:
        """All that are asked for."""
        for _, _, answer in self.asked:
            if not answer.done():
                answer.set_result(error)
        await asyncio.sleep(0)


class _Loop:
    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def time(self) -> float:
        return self._bench.now


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    bench = Bench()

    class Asyncio:
        @staticmethod
        def get_running_loop() -> Any:
            return _Loop(bench)

    monkeypatch.setattr(module, "asyncio", Asyncio)
    yield bench
    await bench.answer()


async def test_what_changes_while_a_hint_is_under_way_waits_for_its_answer(bench: Bench) -> None:
    assert bench.offer(a=BUSY) == ["a"]
    assert bench.offer(a=IDLE) == []
    assert bench.wakes == []
    await bench.answer()
    assert bench.wakes == [None]


async def test_a_pod_gets_one_hint_an_interval(bench: Bench) -> None:
    bench.offer(a=BUSY)
    await bench.answer()
    assert bench.offer(a=IDLE, b=BUSY) == ["b"]
    assert bench.wakes == [100.0 + INTERVAL]
    bench.now += INTERVAL
    assert bench.offer(a=IDLE) == ["a"]


@pytest.mark.parametrize("error", [None, ApiError(403, "Forbidden", "may not")])
async def test_a_hint_that_is_not_seen_is_sent_again_in_a_while(bench: Bench, error: ApiError | None) -> None:
    bench.offer(a=BUSY)
    await bench.answer(error)
    bench.now += INTERVAL
    assert bench.offer(a=BUSY) == []
    bench.now += AGAIN
    assert bench.offer(a=BUSY) == ["a"]


async def test_so_many_at_once_and_the_others_when_these_are_done(bench: Bench) -> None:
    many = {f"pod-{number}": BUSY for number in range(AT_ONCE + 1)}
    assert len(bench.offer(**many)) == AT_ONCE
    assert bench.wakes == []
    await bench.answer()
    assert bench.wakes == [None]
    assert bench.offer(**{f"pod-{AT_ONCE}": BUSY}) == [f"pod-{AT_ONCE}"]
