"""Hypothesis moves the same world, so that what fails is shrunk to a few moves."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.sim.calm import calm
from tests.sim.moves import MOVES, Move, perform
from tests.sim.world import World

NUMBERS = st.integers(0, 2**16 - 1)
WAITS = st.sampled_from((0.0, 0.01, 0.5, 5.0, 60.0))


class Cluster(RuleBasedStateMachine):
    """Every move that there is, in any order; at the end the world comes to rest."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World("machine")
        self.world.__enter__()

    @initialize(a=NUMBERS, b=NUMBERS)
    def begin(self, a: int, b: int) -> None:
        perform(self.world, Move(0.0, "create_pool", a, b))

    @rule(wait=WAITS, name=st.sampled_from(sorted(MOVES)), a=NUMBERS, b=NUMBERS)
    def move(self, wait: float, name: str, a: int, b: int) -> None:
        perform(self.world, Move(wait, name, a, b))

    @rule(wait=WAITS, a=NUMBERS, b=NUMBERS)
    def request(self, wait: float, a: int, b: int) -> None:
        perform(self.world, Move(wait, "request", a, b))

    def teardown(self) -> None:
        try:
            if self.world.checks.broken is None:
                calm(self.world)
        finally:
            self.world.__exit__()


TestCluster = Cluster.TestCase
TestCluster.settings = settings(
    max_examples=15,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
