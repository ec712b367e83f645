"""Who leads: one step of the election, from the Lease as it was read and the time on our own clock.

As client-go does it, times written by others are never compared with our clock: a Lease has expired when *we* have seen
no change of it for its whole duration.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from app.model.meta import ObjectMeta


class LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: LeaseSpec = LeaseSpec()


class Sight(msgspec.Struct, frozen=True):
    """A version of the Lease's spec, and when we first saw it (monotonic seconds)."""

    spec: LeaseSpec
    since: float


class Step(msgspec.Struct, frozen=True):
    """``write`` is the spec that makes or keeps the Lease ours; None while another holds it."""

    sight: Sight
    write: dict[str, Any] | None = None


def step(lease: Lease, sight: Sight | None, *, identity: str, duration: float, now: float, wall: str) -> Step:
    """What to do about the Lease as it stands; ``wall`` is the time to write into it (RFC 3339 with microseconds)."""
    spec = lease.spec
    if sight is None or sight.spec != spec:
        sight = Sight(spec, now)
    if spec.holder_identity == identity:
        return Step(sight, _spec(spec, identity, duration, acquired=spec.acquire_time or wall, wall=wall))
    expired = now >= sight.since + (spec.lease_duration_seconds or duration)
    if spec.holder_identity and not expired:
        return Step(sight)
    return Step(sight, _spec(spec, identity, duration, acquired=wall, wall=wall, transition=True))


def released(spec: LeaseSpec, *, wall: str) -> dict[str, Any]:
    """The spec that lets another take over at once."""
    return {
        "holderIdentity": "",
        "leaseDurationSeconds": 1,
        "acquireTime": spec.acquire_time,
        "renewTime": wall,
        "leaseTransitions": spec.lease_transitions or 0,
    }


def _spec(
    spec: LeaseSpec, identity: str, duration: float, *, acquired: str, wall: str, transition: bool = False
) -> dict[str, Any]:
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": max(1, math.ceil(duration)),
        "acquireTime": acquired,
        "renewTime": wall,
        "leaseTransitions": (spec.lease_transitions or 0) + transition,
    }
