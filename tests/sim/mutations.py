"""Faults put into app on purpose, each of which the simulator must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from app.broker.registry import Registry
from app.controller.actuator import Actuator
from app.core import reconcile
from app.core.expectations import Expectations
from app.core.reconcile import Observed, Plan
from app.core.scaling import Pool
from app.model.meta import FINALIZER

Mutation = Callable[[pytest.MonkeyPatch], None]


def forget_expectations(patch: pytest.MonkeyPatch) -> None:
    """What was asked for is not counted until the watch shows it."""
    patch.setattr(Expectations, "expect_creation", lambda self, name: None)


def ignore_drain(patch: pytest.MonkeyPatch) -> None:
    """Agents are removed without a word to the broker."""
    patch.setattr(Registry, "drain", lambda self, pool, agent: True)


def drop_uid(patch: pytest.MonkeyPatch) -> None:
    """Deletions name no pod in particular."""
    delete = Actuator._delete

    async def without(self: Actuator, pod: Any, uid: str) -> None:
        await delete(self, pod, None)  # type: ignore[arg-type]

    patch.setattr(Actuator, "_delete", without)


def ignore_terminating(patch: pytest.MonkeyPatch) -> None:
    """A pod that is on its way out holds no place any more."""
    patch.setattr(Pool, "room", property(lambda self: self.limits.max_replicas - self.size))


def finalizer_first(patch: pytest.MonkeyPatch) -> None:
    """A pool that is deleted is let go while its pods are there."""
    close = reconcile._close

    def hasty(seen: Observed, memory: Any) -> Plan:
        held = tuple(name for name in seen.pool.metadata.finalizers if name != FINALIZER)
        return msgspec.structs.replace(close(seen, memory), finalizers=held)

    patch.setattr(reconcile, "_close", hasty)


def last_come_first_served(patch: pytest.MonkeyPatch) -> None:
    """The queue is a stack."""
    patch.setattr("app.broker.lifecycle.session_rank", lambda *, priority, arrival: (-priority, -arrival))


def take_unknown_for_gone(patch: pytest.MonkeyPatch) -> None:
    """What ran before this process led counts as pending, which may go first."""
    patch.setattr("app.controller.pools.remember", _without_inheritance)


def _without_inheritance(*args: Any, **options: Any) -> Any:
    return msgspec.structs.replace(reconcile.remember(*args, **options), inherited={})


MUTATIONS: dict[Mutation, set[str]] = {
    forget_expectations: {"maxReplicas"},
    ignore_drain: {"no running agent is removed"},
    drop_uid: {"deletions name the uid"},
    ignore_terminating: {"maxReplicas"},
    finalizer_first: {"the finalizer goes last"},
    last_come_first_served: {"queue order"},
    take_unknown_for_gone: {
        "unknown agents may come back",
        "no running agent is removed",
        "lost agents may come back",
    },
}
"""Each with the invariants that it may break first."""
