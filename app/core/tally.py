"""Workers counted once, so that no rule and no line of a status counts them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

import msgspec

from app.core.workers import JOINED, LIVE, State, Worker

_state = attrgetter("state")


class Tally(msgspec.Struct, frozen=True):
    """``outdated`` counts by state those that live and are not of the template at hand; slots are those of agents."""

    states: Counter[State]
    outdated: Counter[State]
    free: int
    """Slots of agents that have joined or are on their way, less their sessions."""
    joined_free: int
    """Of those that have joined and have their stream."""
    joined_slots: int
    stuck: int
    """Terminating for too long to be waited for."""

    @property
    def live(self) -> int:
        """Workers that count as size."""
        return sum(self.states[state] for state in LIVE)

    @property
    def joined(self) -> int:
        return sum(self.states[state] for state in JOINED)


NOBODY = Tally(states=Counter(), outdated=Counter(), free=0, joined_free=0, joined_slots=0, stuck=0)


def tally(workers: Sequence[Worker], *, template_hash: str) -> Tally:
    """The counts of these workers, in one pass or as good as."""
    joined = [worker for worker in workers if worker.state in JOINED]
    pending = [worker for worker in workers if worker.state is State.PENDING]
    joined_free = sum(worker.free for worker in joined)
    outdated = [worker for worker in workers if worker.template_hash != template_hash and worker.state in LIVE]
    return Tally(
        states=Counter(map(_state, workers)),
        outdated=Counter(map(_state, outdated)),
        free=joined_free + sum(worker.free for worker in pending),
        joined_free=joined_free,
        joined_slots=sum(worker.slots for worker in joined),
        stuck=sum(worker.stuck for worker in workers),
    )
