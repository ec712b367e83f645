"""A failing world's moves cut down to those that it takes: delta debugging (Zeller and Hildebrandt 2002)."""

from __future__ import annotations

from collections.abc import Sequence

from tests.sim.moves import Move
from tests.sim.run import Failure, play


def shrink(failure: Failure, *, attempts: int = 400) -> Failure:
    """The shortest found that breaks the same invariant in the world of the same seed."""
    best, parts = failure, 2
    while len(best.moves) > 1 and attempts > 0:
        size = -(-len(best.moves) // parts)
        for start in range(0, len(best.moves), size):
            attempts -= 1
            fewer = _fails_too(best, [*best.moves[:start], *best.moves[start + size :]])
            if fewer or attempts <= 0:
                break
        else:
            if size == 1:
                break
            parts = min(len(best.moves), parts * 2)
            continue
        if fewer:
            best, parts = fewer, max(2, parts - 1)
    return best


def _fails_too(failure: Failure, moves: Sequence[Move | None]) -> Failure | None:
    found = play(failure.seed, moves)
    return found if found and found.invariant == failure.invariant else None
