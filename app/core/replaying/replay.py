"""The demand of a trace met with other limits, by the very same rules, on a virtual clock that jumps between events."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any

from app.core.dispatch import Rank, Ranking, agent_rank, match, session_rank
from app.core.replaying.demand import Demand, Join
from app.core.replaying.fleet import Fleet
from app.core.replaying.outcome import Meter, Result
from app.core.scaling import Pool, decide
from app.core.workers import State, Worker
from app.model.agentpool import Autoscaler

Limits = Sequence[tuple[float, Autoscaler]]
"""Each with the time from which it holds, in that order."""


class _Picture(Pool, frozen=True):
    """A pool whose workers are only those that a decision could remove; of the ``others`` only the numbers count.

    So a decision costs no more in a large pool than in a small one.
    """

    others: int = 0
    others_free: int = 0

    @property
    def size(self) -> int:
        return len(self.workers) + self.others

    @property
    def idle(self) -> int:
        return sum(worker.free for worker in self.workers) + self.others_free - self.pending_sessions


def replay(demand: Demand, limits: Limits) -> Result:
    """How a pool with these limits would have met the demand.

    As in a world without failures: every agent joins, none is lost, and a removed one is gone at once.
    """
    return _Replay(demand, limits).run()


class _Replay:
    def __init__(self, demand: Demand, limits: Limits) -> None:
        self.demand, self.limits = demand, limits[0][1]
        self.fleet, self.meter = Fleet(), Meter(demand.seconds)
        self.joins, self.later = iter(demand.joins), demand.later_join
        self.queue: Ranking[int] = Ranking()
        """Sessions that wait, by their place in the demand."""
        self.bench: Ranking[str] = Ranking()
        """Agents with a free slot, as sessions take them; beside it those that scaling may take, as it does."""
        self.pending: Ranking[str] = Ranking()
        self.idle: Ranking[str] = Ranking()
        self.now, self.look_at, self.serial = 0.0, math.inf, 0
        self.decay_since: float | None = None
        self.events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        for at, numbers in limits:
            self._at(at, self._limit, numbers)
        for agent in demand.present:
            self._ask(agent)
        for index in sorted(range(len(demand.sessions)), key=lambda index: not demand.sessions[index].carried):
            self._at(demand.sessions[index].at, self._arrive, index)

    def run(self) -> Result:
        while self._next() <= self.demand.seconds:
            self.now = max(self.now, self._next())
            while self.events and self.events[0][0] <= self.now:
                _, _, act, subject = heapq.heappop(self.events)
                act(subject)
                self._dispatch()
            self._settle()
            self.meter.observe(self.now, self.fleet.levels(len(self.queue)))
        for index in self.queue:
            if not self.demand.sessions[index].carried:
                self.meter.leave(self.demand.seconds - self.demand.sessions[index].at)
        return self.meter.result()

    def _next(self) -> float:
        return min(self.events[0][0], self.look_at) if self.events else self.look_at

    def _at(self, at: float, act: Callable[[Any], None], subject: object) -> None:
        """Events of one instant come in the order in which they were foreseen."""
        self.serial += 1
        heapq.heappush(self.events, (max(self.now, at), self.serial, act, subject))

    # What happens.

    def _limit(self, limits: Autoscaler) -> None:
        slots, self.limits = limits.default_slots_per_agent, limits
        for worker in self.fleet:
            if worker.state is State.PENDING and worker.slots != slots:
                self.fleet.ask(worker.name, slots=slots, now=worker.created)

    def _ask(self, join: Join) -> None:
        name = f"{self.serial:09}"
        self._rank(self.fleet.ask(name, slots=self.limits.default_slots_per_agent, now=self.now))
        self._at(self.now + join.delay, self._join, (name, join.slots))

    def _join(self, agent: tuple[str, int | None]) -> None:
        name, slots = agent
        self._rank(self.fleet.join(name, slots=slots or self.limits.default_slots_per_agent, now=self.now))

    def _arrive(self, index: int) -> None:
        session = self.demand.sessions[index]
        rank: Rank = (-math.inf, index) if session.carried else session_rank(priority=session.priority, arrival=index)
        self.queue.set(index, rank)
        if session.patience < math.inf:
            self._at(session.at + session.patience, self._give_up, index)

    def _give_up(self, index: int) -> None:
        if index in self.queue:
            self.queue.discard(index)
            self.meter.cancel(self.now - self.demand.sessions[index].at)

    def _end(self, agent: str) -> None:
        self._rank(self.fleet.release(agent, now=self.now))

    def _dispatch(self) -> None:
        while pair := match(self.queue, self.bench):
            index, agent = pair
            session = self.demand.sessions[index]
            self.queue.discard(index)
            self._rank(self.fleet.take(agent, now=self.now))
            if session.duration < math.inf:
                self._at(self.now + session.duration, self._end, agent)
            if not session.carried:
                self.meter.start(self.now - session.at)

    def _rank(self, worker: Worker | None) -> None:
        """Where it stands now, of the ways in which app.core.dispatch and app.core.selection order agents."""
        if worker is None:
            return
        pending, idle, number = worker.state is State.PENDING, worker.state is State.IDLE, float(worker.name)
        _enter(self.pending, worker.name, (-worker.created, number) if pending else None)
        _enter(self.idle, worker.name, (worker.slots, worker.since, number) if idle else None)
        rank = agent_rank(slots=worker.slots, sessions=worker.sessions, since=worker.since)
        _enter(self.bench, worker.name, None if pending else rank)

    # What is decided.

    def _settle(self) -> None:
        """Decide and do until nothing is left to do at this instant."""
        acted = True
        while acted:
            decision = decide(self._picture(), now=self.now)
            self.decay_since = decision.decay_since
            self.look_at = math.inf if decision.next_at is None else decision.next_at
            for removal in decision.removals:
                self._remove(removal.worker)
            for _ in range(decision.create):
                self._ask(next(self.joins, self.later))
            self.meter.created += decision.create
            self.meter.removed += len(decision.removals)
            acted = bool(decision.create or decision.removals)

    def _picture(self) -> Pool:
        workers = self._candidates()
        return _Picture(
            limits=self.limits,
            workers=workers,
            pending_sessions=len(self.queue),
            decay_since=self.decay_since,
            others=len(self.fleet) - len(workers),
            others_free=self.fleet.slots - sum(worker.free for worker in workers),
        )

    def _candidates(self) -> list[Worker]:
        """All that one decision can remove.

        Of the pending ones, who all have equal slots, and of the idle ones, the smallest first, none can go if the
        one before it cannot; and no more go than the pool is too large by, too idle by, and one that decays.
        """
        limits, size = self.limits, len(self.fleet)
        idle = self.fleet.slots - len(self.queue)
        at_once = max(0, min(idle - limits.max_idle, size - limits.min_replicas))
        most = max(0, size - limits.max_replicas) + at_once + 1
        names = (*_first(self.pending, most), *_first(self.idle, most))
        return [worker for name in names if (worker := self.fleet.get(name))]

    def _remove(self, worker: Worker) -> None:
        self.fleet.remove(worker.name)
        for ranking in (self.pending, self.idle, self.bench):
            ranking.discard(worker.name)


def _enter(ranking: Ranking[str], name: str, rank: Rank | None) -> None:
    if rank is None:
        ranking.discard(name)
    else:
        ranking.set(name, rank)


def _first(ranking: Ranking[str], count: int) -> list[str]:
    """The names that lead the ranking."""
    leading: list[tuple[str, Rank]] = []
    while len(leading) < count and (first := ranking.first()):
        ranking.discard(first[0])
        leading.append(first)
    for name, rank in leading:
        ranking.set(name, rank)
    return [name for name, _ in leading]
