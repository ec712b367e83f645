"""What pods tell other controllers of their agents' sessions."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.hints import Hint, chosen, due, values
from app.core.workers import State, Worker
from app.model.meta import DELETION_COST, SAFE_TO_EVICT

IDLE = {DELETION_COST: "0", SAFE_TO_EVICT: "true"}


def worker(state: State, sessions: int = 0, *, says: tuple[str, str] = ("0", "true"), template: str = "v1") -> Worker:
    return Worker(
        name="w", uid="u", state=state, slots=4, sessions=sessions, hints=says, template_hash=template, joined=True
    )


def of(one: Worker, *keys: str) -> dict[str, str]:
    """The annotations that it should get when its template sets those keys."""
    hints = due([one], lambda template: frozenset(keys))
    assert all((hint.name, hint.uid) == ("w", "u") for hint in hints)
    return dict(hints[0].annotations) if hints else {}


def test_a_busy_agent_is_not_to_be_evicted_and_costs_by_its_sessions() -> None:
    assert of(worker(State.RUNNING, 2)) == {DELETION_COST: "2", SAFE_TO_EVICT: "false"}
    assert of(worker(State.RUNNING, 2, says=("1", "false"))) == {DELETION_COST: "2"}
    assert of(worker(State.RUNNING, 2, says=("2", "false"))) == {}


def test_an_idle_agent_may_go_and_a_new_pod_says_so_already() -> None:
    assert values(0) == IDLE
    assert of(worker(State.IDLE)) == {}
    assert of(worker(State.IDLE, says=("3", "false"))) == IDLE
    assert of(worker(State.IDLE, says=("", ""))) == IDLE


@pytest.mark.parametrize("state", [State.LOST, State.UNKNOWN, State.TERMINATING, State.FINISHED, State.PENDING])
def test_what_was_said_of_an_agent_stands_while_nothing_new_is_known(state: State) -> None:
    assert of(worker(state, says=("3", "false"))) == {}


def test_what_the_template_says_is_left_as_it_is() -> None:
    busy = worker(State.RUNNING, 1)
    assert of(busy, SAFE_TO_EVICT) == {DELETION_COST: "1"}
    assert of(busy, SAFE_TO_EVICT, DELETION_COST) == {}


def test_each_pod_is_judged_by_the_template_that_it_was_made_from() -> None:
    both = [worker(State.RUNNING, 1, template=template) for template in ("v1", "v2")]
    hints = due(both, lambda template: frozenset([SAFE_TO_EVICT] if template == "v1" else []))
    assert hints == (
        Hint("w", "u", {DELETION_COST: "1"}),
        Hint("w", "u", {DELETION_COST: "1", SAFE_TO_EVICT: "false"}),
    )


@pytest.mark.parametrize(
    ("metadata", "keys"),
    [
        ({}, set()),
        ({"metadata": None}, set()),
        ({"metadata": {"annotations": None}}, set()),
        ({"metadata": {"annotations": {SAFE_TO_EVICT: "false", "other": "x"}}}, {SAFE_TO_EVICT}),
    ],
)
def test_what_a_template_sets(metadata: dict[str, Any], keys: set[str]) -> None:
    assert chosen(metadata) == keys
