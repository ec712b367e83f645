"""What the simulator has found: each bug's moves, cut down, must not break anything again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.sim.moves import Move
from tests.sim.run import play


class Found(msgspec.Struct, frozen=True):
    """``bug`` in words, the ``invariant`` that it broke, and the world; ``moves`` None stands for a calm."""

    bug: str
    invariant: str
    seed: str
    moves: list[Move | None]


LINES = Path(__file__).with_name("regressions.jsonl").read_bytes().splitlines()
FOUND = [msgspec.json.decode(line, type=Found) for line in LINES]


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.bug.replace(" ", "-"))
def test_what_was_found_stays_mended(found: Found) -> None:
    failure = play(found.seed, found.moves)
    assert failure is None, failure
