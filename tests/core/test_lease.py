"""One step of the election: who may take the Lease when, by our own clock alone."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from app.core.lease import Lease, LeaseSpec, Sight, Step, released, step

DURATION, DEADLINE = 15.0, 10.0
HELD = LeaseSpec(
    holder_identity="other", lease_duration_seconds=15, acquire_time="then", renew_time="then", lease_transitions=3
)


def take(spec: LeaseSpec, sight: Sight | None, now: float, *, duration: float = DURATION) -> Step:
    return step(Lease(spec=spec), sight, identity="me", duration=duration, now=now, wall="now")


@pytest.mark.parametrize("spec", [LeaseSpec(), LeaseSpec(holder_identity="")])
def test_a_lease_that_nobody_holds_is_taken_at_once(spec: LeaseSpec) -> None:
    assert take(spec, None, 0).write == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "now",
        "renewTime": "now",
        "leaseTransitions": 1,
    }


def test_a_lease_of_another_is_left_for_its_whole_duration_from_when_we_saw_it() -> None:
    first = take(HELD, None, 100)
    assert first.write is None
    assert first.sight == Sight(HELD, 100)
    assert take(HELD, first.sight, 114.9).write is None
    taken = take(HELD, first.sight, 115)
    assert taken.write is not None
    assert (taken.write["leaseTransitions"], taken.write["acquireTime"]) == (4, "now")


def test_each_renewal_of_the_other_begins_the_wait_again() -> None:
    first = take(HELD, None, 100)
    renewed = msgspec.structs.replace(HELD, renew_time="later")
    second = take(renewed, first.sight, 114)
    assert second.sight.since == 114
    assert take(renewed, second.sight, 120).write is None


def test_the_holder_s_duration_counts_not_ours() -> None:
    spec = msgspec.structs.replace(HELD, lease_duration_seconds=60)
    first = take(spec, None, 0, duration=5)
    assert take(spec, first.sight, 59, duration=5).write is None
    assert take(spec, first.sight, 60, duration=5).write


def test_our_own_lease_is_renewed_and_keeps_its_history() -> None:
    spec = msgspec.structs.replace(HELD, holder_identity="me")
    write = take(spec, None, 0).write
    assert write is not None
    assert (write["acquireTime"], write["renewTime"], write["leaseTransitions"]) == ("then", "now", 3)


def test_a_released_lease_is_free() -> None:
    spec = msgspec.convert(released(HELD, wall="now"), LeaseSpec)
    assert take(spec, Sight(HELD, 0), 1).write


def test_a_fraction_of_a_second_is_never_cut_off_the_duration() -> None:
    write = take(LeaseSpec(), None, 0, duration=2.2).write
    assert write is not None
    assert write["leaseDurationSeconds"] == 3


class Replica:
    """Steps at times of its own clock, and holds itself for leader until its deadline after the last renewal."""

    def __init__(self, name: str, offset: float) -> None:
        self.name = name
        self.offset = offset
        self.sight: Sight | None = None
        self.until = float("-inf")

    def step(self, spec: LeaseSpec, now: float) -> dict[str, Any] | None:
        done = step(
            Lease(spec=spec),
            self.sight,
            identity=self.name,
            duration=DURATION,
            now=now + self.offset,
            wall=f"{self.name} {now}",
        )
        self.sight = done.sight
        return done.write


def test_two_never_lead_at_once() -> None:
    """However far apart the clocks are and whichever answers are lost: every course of four requests."""
    requests = list(product((0, 1), (0.5, 5.0, 8.0), (True, False)))
    for course in product(requests, repeat=4):
        replicas = [Replica("a", 0.0), Replica("b", -3e5)]
        spec, now = LeaseSpec(), 0.0
        for index, pause, answered in course:
            now += pause
            replica = replicas[index]
            write = replica.step(spec, now)
            if write is None:
                continue
            spec = msgspec.convert(write, LeaseSpec)
            if answered:
                replica.until = now + DEADLINE
                assert replicas[1 - index].until <= now, course
