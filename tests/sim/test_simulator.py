"""The simulator over a fixed set of worlds: no invariant breaks, it does the same each time, and it finds faults."""

from __future__ import annotations

import msgspec
import pytest

from tests.sim.api import POOLS, uid
from tests.sim.mutations import MUTATIONS, Mutation
from tests.sim.run import Report, moves_of, play
from tests.sim.shrink import shrink
from tests.sim.world import NAMES, World, template

WORLDS = 16
CHECKED = (
    "maxReplicas",
    "no running agent is removed",
    "lost agents may come back",
    "unknown agents may come back",
    "sessions of a deleted pool have their grace",
    "nothing is asked for twice",
    "only own pods are deleted",
    "deletions name the uid",
    "the finalizer goes last",
    "queue order",
    "sessions go to agents that can take them",
    "nobody waits beside a free slot",
    "no session runs twice",
    "no session is lost",
    "no request is forgotten",
    "one answer for each request",
    "the pools come to what the rules want",
    "a world at rest stays at rest",
)


def test_no_invariant_breaks() -> None:
    report = Report()
    for number in range(WORLDS):
        seed = f"tests.{number}"
        failure = play(seed, moves_of(seed), report)
        assert failure is None, failure
    assert report.worlds == WORLDS
    assert report.steps > 1000 * WORLDS
    assert {name for name in CHECKED if not report.checks.get(name)} == set()


def test_the_same_seed_makes_the_same_world() -> None:
    first, second = Report(), Report()
    for report in (first, second):
        play("same", moves_of("same"), report)
    assert first == second
    assert msgspec.json.encode(first) == msgspec.json.encode(second)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_faults_put_in_on_purpose_are_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)
    found = (play(f"tests.{number}", moves_of(f"tests.{number}")) for number in range(WORLDS))
    failure = next((failure for failure in found if failure), None)
    assert failure
    assert failure.invariant in MUTATIONS[mutation], failure.message


def test_a_failure_is_cut_down_to_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions that wait, and an agent that takes them, are all that it takes to see them out of order."""
    mutation = next(mutation for mutation in MUTATIONS if mutation.__name__ == "last_come_first_served")
    mutation(monkeypatch)
    found = (play(f"tests.{number}", moves_of(f"tests.{number}")) for number in range(WORLDS))
    failure = next(failure for failure in found if failure)
    small = shrink(failure, attempts=60)
    assert small.invariant == failure.invariant
    assert len(small.moves) < len(failure.moves)


def test_a_pool_whose_requests_hang_delays_no_other() -> None:
    """It wants more agents than there may be requests under way; another in its namespace goes on as if alone."""
    with World("hanging") as world:
        big = {"maxReplicas": 80, "minIdle": 70, "maxIdle": 75, "killUnknownAfterSecond": 60}
        small = {"maxReplicas": 5, "minIdle": 1, "maxIdle": 2, "killUnknownAfterSecond": 60}
        hanging, other = NAMES[0], NAMES[1]
        world.weather.stalled = {hanging}
        world.loop.do(world.make_pool, hanging, {"autoscaler": big, "template": template(0)})
        world.advance(40.0)  # its status comes first, and gets no answer either
        assert sum(world.checks.creations.values()) > 30
        world.loop.do(world.make_pool, other, {"autoscaler": small, "template": template(0)})
        world.advance(5.0)
        pool = world.api.get(POOLS, other)
        assert pool["status"]["idleReplicas"] == 1
        world.loop.do(lambda: world.request(other, priority=0, service="", force=False))
        world.advance(0.5)
        assert len(world.api.pods_of(uid(pool))) == 2
