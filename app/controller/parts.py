"""What the controller's parts share: the clients that they act through, and what is remembered of each pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.controller.actuator import Actuator
from app.controller.cache import PoolCache
from app.controller.config_maps import ConfigMaps
from app.controller.queue import KeyQueue
from app.core import breaker as breakers
from app.core.agents import AgentDirectory
from app.core.budget import Budget
from app.core.expectations import Expectations
from app.core.proofs import Proof
from app.core.reconcile import Memory
from app.core.trace import Record, Recorder
from app.kube.client import Client
from app.kube.events import EventRecorder
from app.model.agentpool import AgentPool, FieldError, PoolSpec
from app.model.meta import NamespacedName


@dataclass(frozen=True, kw_only=True)
class Parts:
    """For one term of leadership."""

    client: Client
    cache: PoolCache
    agents: AgentDirectory
    events: EventRecorder
    config_maps: ConfigMaps
    proof: Proof | None
    actuator: Actuator
    queue: KeyQueue[NamespacedName]
    record: Recorder

    def trace(self, pool: NamespacedName, event: Callable[[float, str], Record], agent: str) -> None:
        """Tell the pool's trace what happened to an agent."""
        self.record(pool, event(time.time(), agent))


@dataclass(frozen=True)
class SentHint:
    """``at`` is when it was answered (monotonic seconds), None until then."""

    annotations: Mapping[str, str]
    at: float | None = None


class Hinted:
    """A pool's hints: the last one of each pod by uid, and whether some wait for those under way."""

    def __init__(self) -> None:
        self.sent: dict[str, SentHint] = {}
        self.in_flight = 0
        self.left = False


class PoolState:
    """What this process remembers of one AgentPool while it leads."""

    def __init__(self, uid: str, memory: Memory) -> None:
        self.uid = uid
        self.memory = memory
        self.breaker = breakers.CLOSED
        self.ailing = ""
        self.expectations = Expectations()
        self.spec: PoolSpec | Sequence[FieldError] = ()
        self.spec_generation = -1
        self.revision_asked = ("", float("-inf"))
        """The template that was last asked to be kept, and when."""
        self.status_at = float("-inf")
        self.status_in_flight = False
        self.status_sent: tuple[str, Mapping[str, Any]] | None = None
        """The last status sent, with the resourceVersion of the pool that it was made from."""
        self.closing = False
        """It is being deleted: nothing is created for it any more."""
        self.adopting: dict[str, str] = {}
        """The resourceVersion that an adoption was last asked for with, by the pod's uid."""
        self.hinted = Hinted()
        self.budget = Budget(share=0.1, credit=0.1, patience=0.5)
        """Of plans: floods of events take a tenth of a core, of all pools together, and news waits half a second at
        most."""


@dataclass(frozen=True)
class Subject:
    """The pool that a plan is carried out for, as it was when the plan was made."""

    key: NamespacedName
    pool: AgentPool
    state: PoolState
