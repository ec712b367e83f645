"""What was asked of the API server and the watch has not shown yet, so that nothing is asked for twice."""

from __future__ import annotations

from collections.abc import Collection

TTL = 300.0
"""Seconds after its answer after which an expectation is given up (source: ReplicaSet's ExpectationsTimeout)."""
NEVER = float("inf")


class Expectations:
    """One pool's pods on their way: created by name (ours to choose), deleted by uid. Times are monotonic seconds.

    What has no answer yet is expected for as long as that takes; only then the watch's time begins.
    """

    def __init__(self) -> None:
        self._created: dict[str, float] = {}
        self._deleted: dict[str, float] = {}

    def expect_creation(self, name: str) -> None:
        self._created[name] = NEVER

    def creation_answered(self, name: str, *, now: float) -> None:
        """The API server made it, or nobody knows and nobody will ask again."""
        _answered(self._created, name, now)

    def creation_failed(self, name: str) -> None:
        self._created.pop(name, None)

    def expect_deletion(self, uid: str) -> None:
        self._deleted[uid] = NEVER

    def deletion_answered(self, uid: str, *, now: float) -> None:
        _answered(self._deleted, uid, now)

    def deletion_failed(self, uid: str) -> None:
        self._deleted.pop(uid, None)

    def observe(self, name: str, uid: str, *, gone: bool) -> None:
        """The watch has shown this pod: it exists (``gone`` False), or it is terminating or deleted."""
        self._created.pop(name, None)
        if gone:
            self._deleted.pop(uid, None)

    @property
    def filling(self) -> bool:
        """Creations were asked for that are not seen yet."""
        return bool(self._created)

    def creating(self, *, now: float) -> Collection[str]:
        """Names asked for and not seen yet."""
        _drop_expired(self._created, now)
        return self._created.keys()

    def deleting(self, *, now: float) -> Collection[str]:
        """Uids whose deletion was asked for and is not seen yet."""
        _drop_expired(self._deleted, now)
        return self._deleted.keys()

    @property
    def next_expiry(self) -> float | None:
        """When the next is given up; nothing may happen until then that would have anybody look again."""
        deadlines = (*self._created.values(), *self._deleted.values())
        return min((deadline for deadline in deadlines if deadline < NEVER), default=None)


def _answered(deadlines: dict[str, float], what: str, now: float) -> None:
    if deadlines.pop(what, None) is not None:
        deadlines[what] = now + TTL


def _drop_expired(deadlines: dict[str, float], now: float) -> None:
    for what in [what for what, deadline in deadlines.items() if deadline <= now]:
        del deadlines[what]
