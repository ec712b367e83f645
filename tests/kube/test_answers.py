"""What the API server said is used for seconds; equal questions are one; what fails is asked again."""

from __future__ import annotations

import asyncio

import pytest

from app.kube import answers
from app.kube.answers import Answers
from app.kube.errors import ApiError, ApiUnreachable
from tests.support.clock import Clock


class Asked:
    """Counts, and answers once it is let."""

    def __init__(self, *results: str | ApiError) -> None:
        self.results = list(results)
        self.count = 0
        self.reached = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()
        self.answered = asyncio.Event()

    async def answer(self) -> None:
        """Let what is asked be answered, and wait until it is kept."""
        self.answered.clear()
        self.let.set()
        await self.answered.wait()
        await asyncio.sleep(0)  # from what was asked to who keeps it

    async def __call__(self) -> str:
        self.count += 1
        self.reached.set()
        await self.let.wait()
        self.answered.set()
        result = self.results.pop(0)
        if isinstance(result, ApiError):
            raise result
        return result


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> Answers[str]:
    return Answers(lambda answer: 10 if answer == "yes" else 2, clock=clock)


async def test_an_answer_holds_as_long_as_is_said_of_it(kept: Answers[str], clock: Clock) -> None:
    asked = Asked("no", "yes", "no")
    assert await kept.get("k", asked) == "no"
    clock.now = 0.9
    assert await kept.get("k", asked) == "no"
    clock.now = 2.0
    assert await kept.get("k", asked) == "yes"
    clock.now = 6.9
    assert await kept.get("k", asked) == "yes"
    assert await kept.get("another", Asked("no")) == "no"
    clock.now = 12.0
    assert await kept.get("k", asked) == "no"


async def test_an_answer_in_use_is_asked_for_again_before_it_is_too_old(kept: Answers[str], clock: Clock) -> None:
    asked = Asked("yes", "yes", "no")
    await kept.get("k", asked)
    asked.let.clear()
    clock.now = 5.0
    assert [await kept.get("k", asked) for _ in range(3)] == ["yes"] * 3
    await asked.reached.wait()
    await asked.answer()
    assert asked.count == 2
    clock.now = 14.9
    assert await kept.get("k", asked) == "yes"
    await asked.answer()
    assert await kept.get("k", asked) == "no"
    assert asked.count == 3


async def test_an_answer_that_is_gone_back_on_does_not_hold_until_its_time_is_over(clock: Clock) -> None:
    kept = Answers[str](lambda answer: 10 if answer == "yes" else 0, clock=clock)
    asked = Asked("yes", "no", "no")
    await kept.get("k", asked)
    clock.now = 5.0
    assert await kept.get("k", asked) == "yes"
    await asked.answer()
    assert await kept.get("k", asked) == "no"


async def test_an_answer_holds_its_time_though_it_cannot_be_asked_for_again(kept: Answers[str], clock: Clock) -> None:
    asked = Asked("yes", ApiError(500, "", "etcd"), "yes")
    await kept.get("k", asked)
    for clock.now in (6.0, 9.9):
        assert await kept.get("k", asked) == "yes"
        await asked.answer()
    assert asked.count == 3


async def test_equal_questions_at_one_time_are_one_and_outlive_who_asked_first(kept: Answers[str]) -> None:
    asked = Asked("yes")
    asked.let.clear()
    first, *others = [asyncio.create_task(kept.get("k", asked)) for _ in range(3)]
    await asked.reached.wait()
    first.cancel()
    asked.let.set()
    assert await asyncio.gather(*others) == ["yes", "yes"]
    assert first.cancelled()
    assert asked.count == 1


async def test_an_error_is_everyones_who_asked_and_is_not_kept(kept: Answers[str]) -> None:
    asked = Asked(ApiError(500, "", "etcd"), "yes")
    first, second = (asyncio.create_task(kept.get("k", asked)) for _ in range(2))
    for task in (first, second):
        with pytest.raises(ApiError, match="etcd"):
            await task
    assert await kept.get("k", asked) == "yes"


async def test_only_so_many_questions_at_once_and_only_so_many_wait(
    kept: Answers[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "WAITING", answers.AT_ONCE + 1)
    asked = Asked(*["yes"] * 100)
    asked.let.clear()
    tasks = [asyncio.create_task(kept.get(number, asked)) for number in range(answers.AT_ONCE + 1)]
    while asked.count < answers.AT_ONCE:
        asked.reached.clear()
        await asked.reached.wait()
    with pytest.raises(ApiUnreachable, match="wait already"):
        await kept.get("one more", asked)
    assert asked.count == answers.AT_ONCE
    asked.let.set()
    assert set(await asyncio.gather(*tasks)) == {"yes"}
    assert await kept.get("one more", asked) == "yes"


async def test_no_question_waits_without_end(kept: Answers[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "TIMEOUT", 0.01)
    asked = Asked("yes")
    asked.let.clear()
    with pytest.raises(ApiUnreachable, match="no answer within"):
        await kept.get("k", asked)


async def test_old_answers_make_room(kept: Answers[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(answers.KEPT + 1):
        await kept.get(number, Asked("yes"))
    again = Asked("yes")
    await kept.get(0, again)
    await kept.get(answers.KEPT, again)
    assert again.count == 1
