"""Back-off after a failed creation: exponential from 1 s to 60 s with jitter; after it one probe, then 2, 4, 8 …."""

from __future__ import annotations

import msgspec

FIRST_DELAY = 1.0
MAX_DELAY = 60.0
FORGET_AFTER = 90.0
"""Seconds without an error that clear it (reference: autoscaling rule 7)."""


class Backoff(msgspec.Struct, frozen=True):
    """A pool's creation errors. Times are monotonic seconds, but ``error_time`` is epoch seconds, for people."""

    failures: int = 0
    until: float = 0.0
    last_failure: float = 0.0
    allowance: int = 0
    """How many creations may be under way at once while errors are recent; 0 means no limit."""
    error: str = ""
    error_time: float = 0.0
    terminal: bool = False
    """Waiting cannot mend it: the API server refuses the pod as such (invalid, forbidden, a missing account)."""

    def blocks(self, now: float) -> bool:
        return bool(self.failures) and now < self.until


NONE = Backoff()


def failed(backoff: Backoff, error: str, *, now: float, wall: float, jitter: float, terminal: bool = False) -> Backoff:
    """After a failed creation. ``jitter`` is a random number in [0, 1): the delay is 50 to 100 % of the full one.

    Failures of creations that were under way together count once: while it blocks, only the text is renewed.
    """
    if backoff.blocks(now):
        return msgspec.structs.replace(backoff, error=error, error_time=wall, last_failure=now, terminal=terminal)
    full = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(backoff.failures, 16))
    return Backoff(
        failures=backoff.failures + 1,
        until=now + full * (0.5 + jitter / 2),
        last_failure=now,
        allowance=1,
        error=error,
        error_time=wall,
        terminal=terminal,
    )


def succeeded(backoff: Backoff) -> Backoff:
    """After a creation that the API server took: twice as many may be under way, and the error is no longer true."""
    if not backoff.failures:
        return backoff
    return msgspec.structs.replace(backoff, allowance=min(backoff.allowance * 2, 1 << 16), error="", terminal=False)


def retry_now(backoff: Backoff) -> Backoff:
    """What caused it may have changed (spec, quota, nodes): try again at once, with one probe."""
    return msgspec.structs.replace(backoff, until=0.0)


def expired(backoff: Backoff, now: float) -> bool:
    """Nothing failed for so long that the past no longer matters."""
    return bool(backoff.failures) and now - max(backoff.last_failure, backoff.until) >= FORGET_AFTER
