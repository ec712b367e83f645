"""When creating agents keeps failing: back-off and a circuit breaker, for each pool, template and cause.

Exponential from 1 s to 60 s with jitter. Then one probe: what refuses pods lets 2, 4, 8 … through after each success;
what keeps pods from becoming agents lets one pod at a time through until one has joined.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from app.core.diagnosis import Cause, Problem

FIRST_DELAY = 1.0
MAX_DELAY = 60.0
FORGET_AFTER = 90.0
"""Seconds without an error that clear it (reference: autoscaling rule 7)."""

PROVED_BY_CREATION = frozenset({Cause.QUOTA, Cause.REFUSED, Cause.UNREACHABLE})
"""Causes that are over once the API server takes a pod; the others are over when an agent joins."""


class Circuit(msgspec.Struct, frozen=True):
    """The failures of one cause. Times are monotonic seconds, but ``time`` is epoch seconds, for people."""

    problem: Problem
    failures: int
    since: float
    until: float
    last: float
    time: float
    allowance: int = 1
    """How many creations may be under way at once; grows only where creation itself is the proof."""
    closed: bool = False
    """A probe succeeded: still counted for the next delay, but no longer what is wrong."""

    @property
    def proved_by_creation(self) -> bool:
        return self.problem.cause in PROVED_BY_CREATION

    @property
    def forgotten_at(self) -> float:
        return max(self.last, self.until) + FORGET_AFTER


class Breaker(msgspec.Struct, frozen=True):
    """A pool's circuits for one version of its template; another version starts with none."""

    template_hash: str = ""
    circuits: tuple[Circuit, ...] = ()

    @property
    def problem(self) -> Problem | None:
        """What is wrong now: of the circuits that are open, the latest."""
        return self._worst.problem if self._worst else None

    @property
    def problem_time(self) -> float:
        return self._worst.time if self._worst else 0.0

    @property
    def open_since(self) -> float | None:
        """Since when something has been wrong without a break."""
        return min((circuit.since for circuit in self.circuits if not circuit.closed), default=None)

    @property
    def refused(self) -> bool:
        """Waiting cannot mend it: the API server does not take the pod as such."""
        return any(c.problem.cause is Cause.REFUSED and not c.closed for c in self.circuits)

    @property
    def _worst(self) -> Circuit | None:
        return max((c for c in self.circuits if not c.closed), key=lambda c: c.last, default=None)

    def blocked_until(self, now: float) -> float | None:
        """When creation may be tried again; None when it may be now."""
        return max((circuit.until for circuit in self.circuits if now < circuit.until), default=None)

    def room(self, *, asked: int, unproved: int) -> int | None:
        """How many creations the circuits let through; None for any number.

        ``asked`` creations have no answer yet; ``unproved`` agents of this template have not joined.
        """
        rooms = [
            max(0, circuit.allowance - (asked if circuit.proved_by_creation else asked + unproved))
            for circuit in self.circuits
        ]
        return min(rooms, default=None)


CLOSED = Breaker()


def failed(
    breaker: Breaker, problem: Problem, *, template_hash: str, now: float, wall: float, jitter: float
) -> Breaker:
    """After a failure. ``jitter`` is a random number in [0, 1): the delay is 50 to 100 % of the full one.

    Failures of creations that were under way together count once: while the circuit blocks, only the text is renewed.
    """
    breaker = for_template(breaker, template_hash)
    known = next((c for c in breaker.circuits if c.problem.cause is problem.cause), None)
    others = tuple(c for c in breaker.circuits if c is not known)
    if known and now < known.until:
        renewed = msgspec.structs.replace(known, problem=problem, last=now, time=wall, closed=False)
        return Breaker(template_hash, (*others, renewed))
    failures = known.failures + 1 if known else 1
    full = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))
    circuit = Circuit(
        problem=problem,
        failures=failures,
        since=known.since if known and not known.closed else now,
        until=now + full * (0.5 + jitter / 2),
        last=now,
        time=wall,
    )
    return Breaker(template_hash, (*others, circuit))


def created(breaker: Breaker) -> Breaker:
    """After a creation that the API server took: twice as many may be under way, and it is no longer what is wrong."""
    if not any(circuit.proved_by_creation for circuit in breaker.circuits):
        return breaker
    circuits = tuple(
        msgspec.structs.replace(circuit, allowance=min(circuit.allowance * 2, 1 << 16), closed=True)
        if circuit.proved_by_creation
        else circuit
        for circuit in breaker.circuits
    )
    return Breaker(breaker.template_hash, circuits)


def retry_now(breaker: Breaker) -> Breaker:
    """What caused it may have changed (spec, quota): try again at once, with one probe."""
    circuits = tuple(msgspec.structs.replace(circuit, until=0.0) for circuit in breaker.circuits)
    return Breaker(breaker.template_hash, circuits)


def for_template(breaker: Breaker, template_hash: str) -> Breaker:
    """Another version of the template has failed at nothing yet."""
    return breaker if breaker.template_hash == template_hash else Breaker(template_hash)


def refreshed(breaker: Breaker, *, template_hash: str, joined: Iterable[str], probing: bool, now: float) -> Breaker:
    """What time and success leave of it.

    ``joined``: template hashes of the agents that have joined since; ``probing``: one of this template has yet to join,
    so that silence proves nothing.
    """
    breaker = for_template(breaker, template_hash)
    if not breaker.circuits:
        return breaker
    if template_hash in joined:
        return Breaker(template_hash)
    circuits = tuple(
        circuit
        for circuit in breaker.circuits
        if (probing and not circuit.proved_by_creation) or now < circuit.forgotten_at
    )
    return breaker if len(circuits) == len(breaker.circuits) else Breaker(template_hash, circuits)
