"""Who is removed is still what the plan took it for: a plan may be carried out some time after it was made."""

from __future__ import annotations

import pytest

from app.controller.removals import is_still
from app.core.agents import AgentView
from app.core.workers import State, Worker

HERE = AgentView(name="a", connected=True, slots=1, sessions=0, since=0.0)
LOST = AgentView(name="a", connected=False, slots=1, sessions=1, since=0.0)


@pytest.mark.parametrize(
    ("state", "views"),
    [
        (State.IDLE, [HERE]),
        (State.LOST, [LOST]),
        (State.PENDING, [None]),
        (State.HELD, [None]),
        (State.BROKEN, [None]),
        (State.UNKNOWN, [None]),
        (State.RUNNING, [HERE, LOST, None]),
        (State.FINISHED, [HERE, LOST, None]),
    ],
)
def test_an_agent_is_removed_as_long_as_it_is_what_it_was(state: State, views: list[AgentView | None]) -> None:
    worker = Worker(name="a", uid="uid", state=state, slots=1)
    assert [view for view in (HERE, LOST, None) if is_still(worker, view)] == views
