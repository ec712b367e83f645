"""A fixed set of simulated worlds: no invariant of pools, agents and sessions breaks in any of them."""

from __future__ import annotations

import pytest

from app.core.expectations import Expectations
from tests.sim.run import run

STEPS = 15_000


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_no_invariant_breaks(seed: int) -> None:
    report = run(seed, STEPS)
    assert report.failures == []
    assert report.steps >= STEPS
    assert report.checks["maxReplicas"]
    assert report.checks["no session is lost"]


def test_the_same_seed_gives_the_same_world() -> None:
    first, second = run(7, 3000), run(7, 3000)
    assert (first.steps, first.moves, first.checks) == (second.steps, second.moves, second.checks)


def test_creations_that_are_forgotten_at_once_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Expectations, "creating", lambda self, *, now: ())
    assert run(1, STEPS).failures
