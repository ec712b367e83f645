"""Agents that go: out of dispatch first, then their pods; back into dispatch when the API server does not delete."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from app.controller.actuator import Answer
from app.controller.parts import Parts, Subject
from app.core.agents import AgentView
from app.core.scaling import Removal
from app.core.trace import AgentRemoved
from app.core.workers import State, Worker
from app.model.meta import NamespacedName
from app.obs.pools import POOLS

DOOMED = (State.RUNNING, State.FINISHED)
"""Removed even with a session: running agents of a pool that is deleted, and those whose pod has ended."""

RETRY_AFTER = 5.0
"""Seconds from a deletion that the API server refused to the next."""

log = structlog.get_logger()


class Removals:
    """Asks for deletions, each with the uid of the pod that is meant."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def start(self, subject: Subject, removals: Sequence[Removal]) -> None:
        key, state, agents = subject.key, subject.state, self._parts.agents
        views = agents.pool_agents(key).agents if removals else {}
        for removal in removals:
            worker = removal.worker
            if not is_still(worker, views.get(worker.name)):
                continue  # it joined, broke off or came back since the plan was made
            if not agents.drain(key, worker.name) and worker.state not in DOOMED:
                continue  # a session was dispatched to it
            state.expectations.expect_deletion(worker.uid)
            self._parts.trace(key, AgentRemoved, worker.name)
            log.info("deleting agent", pool=str(key), pod=worker.name, state=worker.state.value, reason=removal.reason)
            pod = NamespacedName(key.namespace, worker.name)
            answer = self._parts.actuator.delete(pod, uid=worker.uid, pool=key)
            answer.add_done_callback(partial(self._answered, subject, removal))

    def _answered(self, subject: Subject, removal: Removal, answer: Answer) -> None:
        if answer.cancelled():
            return
        worker, events = removal.worker, self._parts.events
        error = answer.result()
        if error is None:
            POOLS.of(subject.key).deleted += 1
            subject.state.expectations.deletion_answered(worker.uid, now=asyncio.get_running_loop().time())
            events.record(subject.pool, "Normal", "Deleted", f"Deleted agent {worker.name}: {removal.reason}")
            return
        log.error("agent not deleted", pool=str(subject.key), pod=worker.name, error=str(error))
        events.record(subject.pool, "Warning", "DeleteFailed", f"Agent {worker.name} not deleted: {error.message}")
        # Until then it counts as terminating: what was refused just now is not asked for again at once.
        asyncio.get_running_loop().call_later(RETRY_AFTER, self._give_up, subject, worker)

    def _give_up(self, subject: Subject, worker: Worker) -> None:
        """Back into dispatch; the next plan may want it gone again."""
        subject.state.expectations.deletion_failed(worker.uid)
        self._parts.agents.undrain(subject.key, worker.name)
        self._parts.queue.add(subject.key)


def is_still(worker: Worker, view: AgentView | None) -> bool:
    """Whether the broker's part of what the worker was seen as still holds; its sessions are left to ``drain``."""
    if worker.state in DOOMED:
        return True
    if worker.state is State.IDLE:
        return view is not None and view.connected
    if worker.state is State.LOST:
        return view is not None and not view.connected
    return view is None
