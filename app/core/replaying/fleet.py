"""A pool's agents as levels that change one event at a time, whether they were recorded or are replayed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from app.core.replaying.outcome import Levels
from app.core.workers import State, Worker


class Fleet:
    """What is said of an agent that is not there is ignored: a trace may have gaps. No call costs more with more."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._pending = self._idle = self._running = self._free = 0
        self.coming = 0
        """Slots of agents that are pending."""

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    @property
    def slots(self) -> int:
        """That a session could take, now or when pending agents join."""
        return self._free + self.coming

    def levels(self, queued: int) -> Levels:
        return Levels(len(self._workers), self._pending, self._idle, self._running, self._free, queued)

    def get(self, name: str) -> Worker | None:
        return self._workers.get(name)

    def ask(self, name: str, *, slots: int, now: float) -> Worker:
        return self._put(Worker(name=name, uid=name, state=State.PENDING, slots=slots, since=now, created=now))

    def join(self, name: str, *, slots: int, now: float) -> Worker | None:
        """For the first time, or again."""
        worker = self._workers.get(name)
        if worker is None:
            return None
        state = State.RUNNING if worker.sessions else State.IDLE
        return self._put(msgspec.structs.replace(worker, state=state, slots=slots, since=now, joined=True))

    def lose(self, name: str, *, now: float) -> None:
        if worker := self._workers.get(name):
            self._put(msgspec.structs.replace(worker, state=State.LOST, since=now))

    def remove(self, name: str) -> None:
        if worker := self._workers.pop(name, None):
            self._count(worker, -1)

    def take(self, name: str, *, now: float) -> Worker | None:
        """A session starts on it."""
        return self._sessions(name, 1, now)

    def release(self, name: str, *, now: float) -> Worker | None:
        """One of its sessions is over."""
        return self._sessions(name, -1, now)

    def _sessions(self, name: str, change: int, now: float) -> Worker | None:
        worker = self._workers.get(name)
        if worker is None:
            return None
        sessions = max(0, worker.sessions + change)
        state = worker.state
        if state in (State.IDLE, State.RUNNING):
            state = State.RUNNING if sessions else State.IDLE
        since = now if change > 0 or not sessions else worker.since
        return self._put(msgspec.structs.replace(worker, sessions=sessions, state=state, since=since))

    def _put(self, worker: Worker) -> Worker:
        if old := self._workers.get(worker.name):
            self._count(old, -1)
        self._workers[worker.name] = worker
        self._count(worker, 1)
        return worker

    def _count(self, worker: Worker, sign: int) -> None:
        if worker.state is State.PENDING:
            self._pending += sign
            self.coming += sign * worker.free
            return
        self._idle += sign * (worker.state is State.IDLE)
        self._running += sign * (worker.state is State.RUNNING)
        self._free += sign * worker.free
