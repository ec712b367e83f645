"""Many worlds, one after the other, each from its own seed: some hundred moves, then calm, then some more."""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.sim.calm import calm
from tests.sim.checks import BrokenError
from tests.sim.moves import Move, draw, perform
from tests.sim.world import World

STORMS = 3
MOVES_A_STORM = 60


class Failure(msgspec.Struct, frozen=True):
    """``seed`` is the world's; ``moves`` None stands for a calm."""

    seed: str
    invariant: str
    message: str
    moves: list[Move | None]


class Report(msgspec.Struct):
    seeds: list[int] = []
    worlds: int = 0
    moves: int = 0
    steps: int = 0
    virtual_hours: float = 0.0
    seconds: float = 0.0
    checks: dict[str, int] = {}
    failures: list[Failure] = []

    def merge(self, other: Report) -> None:
        for name in ("worlds", "moves", "steps", "virtual_hours", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seeds = sorted({*self.seeds, *other.seeds})
        self.checks = dict(Counter(self.checks) + Counter(other.checks))
        self.failures = self.failures + other.failures

    def line(self) -> dict[str, Any]:
        """For a line of JSON: rates in place of the moves."""
        told = msgspec.to_builtins(self)
        told["steps_per_second"] = round(self.steps / self.seconds) if self.seconds else 0
        told["failures"] = [{k: v for k, v in failure.items() if k != "moves"} for failure in told["failures"]]
        return {**told, "seconds": round(self.seconds, 1), "virtual_hours": round(self.virtual_hours, 1)}


def run(seed: int, steps: int) -> Report:
    """So many steps at least, in as many worlds as that takes; a world that fails is left."""
    report, begun = Report(seeds=[seed]), time.perf_counter()
    while report.steps < steps:
        world_seed = f"{seed}.{report.worlds}"
        plan = moves_of(world_seed)
        failure = play(world_seed, plan, report)
        if failure:
            report.failures.append(failure)
    report.seconds = time.perf_counter() - begun
    return report


def moves_of(seed: str) -> list[Move | None]:
    """What happens in the world of that seed."""
    rng = random.Random(f"moves {seed}")
    plan: list[Move | None] = [Move(0.0, "create_pool", rng.randrange(4), rng.randrange(1 << 16)) for _ in range(3)]
    for _ in range(STORMS):
        plan += [draw(rng) for _ in range(MOVES_A_STORM)]
        plan.append(None)
    return plan


def play(seed: str, moves: Sequence[Move | None], report: Report | None = None) -> Failure | None:
    """One world with these moves; how it failed, if it did."""
    failure = None
    with World(seed) as world:
        begun = world.loop.time()
        done = 0
        try:
            for move in moves:
                done += 1
                if move is None:
                    calm(world)
                else:
                    perform(world, move)
        except BrokenError as error:
            failure = Failure(seed, error.invariant, str(error), list(moves[:done]))
        if report:
            report.worlds += 1
            report.moves += done
            report.steps += world.steps
            report.virtual_hours += (world.loop.time() - begun) / 3600
            report.checks = dict(Counter(report.checks) + world.checks.counts)
    if report and report.worlds % 20 == 0:
        gc.collect()
    return failure
