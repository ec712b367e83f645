"""One pool's last hour as compact columns of numbers: a step function, written only when something changes."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

STEP = 10
"""Seconds: of changes within one step the last is kept."""
SPAN = 3600
"""Seconds that are kept."""
COLUMNS = {
    "size": "replicas",
    "idle": "idleReplicas",
    "running": "runningReplicas",
    "pending": "pendingReplicas",
    "unknown": "unknownReplicas",
    "queue": "pendingSessions",
}
"""Name in a sample → field of an AgentPool's status."""
_LARGEST = 2**32 - 1


def sample(status: Mapping[str, Any]) -> dict[str, int]:
    """What a status counts; what is no count is 0."""
    return {name: count(status, field) for name, field in COLUMNS.items()}


def count(fields: Mapping[str, Any], name: str) -> int:
    """A number of agents, slots or sessions; 0 for anything else."""
    value = fields.get(name)
    return min(value, _LARGEST) if isinstance(value, int) and value > 0 else 0


class History:
    """At most SPAN / STEP samples and one, 28 bytes each: 10 kB a pool however much happens."""

    __slots__ = ("_columns", "_times")

    def __init__(self) -> None:
        self._times = array("I")
        self._columns = {name: array("I") for name in COLUMNS}

    def add(self, at: float, values: Mapping[str, int]) -> None:
        """``at`` in epoch seconds; what comes from before the last step counts as of that step."""
        second = int(at)
        if self._times and all(column[-1] == values[name] for name, column in self._columns.items()):
            return
        if self._times and second // STEP <= self._times[-1] // STEP:
            for name, column in self._columns.items():
                column[-1] = values[name]
            return
        self._times.append(second)
        for name, column in self._columns.items():
            column.append(values[name])
        self._forget(second - SPAN)

    def _forget(self, before: int) -> None:
        """All but the last sample from before then: it says what held at that time."""
        old = bisect_right(self._times, before) - 1
        if old > 0:
            for column in (self._times, *self._columns.values()):
                del column[:old]

    def columns(self) -> dict[str, list[int]]:
        """``at`` and the columns, oldest first."""
        return {"at": self._times.tolist(), **{name: column.tolist() for name, column in self._columns.items()}}
