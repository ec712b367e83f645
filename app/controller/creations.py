"""New agents: the batch that a plan wants, and what it means to the pool when some of it fails."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Iterable
from functools import partial

import msgspec
import structlog

from app.controller.actuator import Answer, is_doubtful, problem_of
from app.controller.parts import Parts, Subject
from app.core import breaker as breakers
from app.core.diagnosis import Problem
from app.core.podspec import Body, encode_pod, pod_name
from app.core.reconcile import Plan
from app.core.trace import AgentAsked, AgentCreated, AgentRemoved
from app.core.words import agents
from app.kube.errors import ApiError
from app.model.agentpool import PoolSpec
from app.model.meta import CONFIG_MAP_ANNOTATION, NamespacedName
from app.obs.pools import POOLS

MOST_ASKED = 1000
MOST_BYTES = 16 << 20
"""Of one pool: creations that the watch has not shown yet, and their bodies, whatever it is that the pool may have. The
rest is planned anew as they are shown."""

log = structlog.get_logger()


class Creations:
    """Asks for pods; each answer changes the pool's expectations and its breaker at once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def start(self, subject: Subject, plan: Plan) -> None:
        """Expect what the plan creates, and create it beside the next reconcile."""
        key, state = subject.key, subject.state
        if not plan.create or not plan.version or not isinstance(state.spec, PoolSpec):
            return
        config_map = subject.pool.metadata.annotation(CONFIG_MAP_ANNOTATION) or self._parts.config_maps.name
        spec = msgspec.structs.replace(state.spec, template=plan.version.template, template_hash=plan.version.target)
        body = encode_pod(subject.pool, spec, config_map=config_map, proof=self._parts.proof)
        asked = len(state.expectations.creating(now=asyncio.get_running_loop().time()))
        count = min(plan.create, _room(body, asked=asked))
        if not count:
            return
        bodies = {name: body.named(name) for name in (pod_name(key.name, secrets.token_hex(4)) for _ in range(count))}
        for name in bodies:
            state.expectations.expect_creation(name)
            self._parts.trace(key, AgentAsked, name)
        log.info("creating agents", pool=str(key), count=count, reason=plan.create_reason)
        self._parts.queue.spawn(self._create_or_give_up(subject, bodies, plan), name=f"create for {key}")

    async def _create_or_give_up(self, subject: Subject, bodies: dict[str, bytes], plan: Plan) -> None:
        """What was not even asked for is not waited for."""
        try:
            await self._create(subject, bodies, plan)
        except Exception:
            _forget(subject, bodies)
            raise

    async def _create(self, subject: Subject, bodies: dict[str, bytes], plan: Plan) -> None:
        key = subject.key
        await self._parts.config_maps.ensure(key.namespace)
        if subject.state.closing:
            _forget(subject, bodies)
            self._parts.queue.add(key)
            return
        answers = []
        for number, (name, body) in enumerate(bodies.items()):
            answer = self._parts.actuator.create(
                NamespacedName(key.namespace, name),
                body,
                pool=key,
                urgent=number < plan.create_urgent,
                doubtful=partial(self._failed, subject),
            )
            answer.add_done_callback(partial(self._answered, subject, name))
            answers.append(answer)
        results = await asyncio.gather(*answers, return_exceptions=True)
        if made := results.count(None):
            text = f"Created {agents(made)}: {plan.create_reason}"
            self._parts.events.record(subject.pool, "Normal", "Created", text)

    def _answered(self, subject: Subject, name: str, answer: Answer) -> None:
        state = subject.state
        error = None if answer.cancelled() else answer.result()
        failed = answer.cancelled() or error is not None
        self._parts.trace(subject.key, AgentRemoved if failed else AgentCreated, name)
        if answer.cancelled() or (error and not is_doubtful(error)):
            state.expectations.creation_failed(name)
        else:
            state.expectations.creation_answered(name, now=asyncio.get_running_loop().time())
        if error:
            POOLS.of(subject.key).refused += not is_doubtful(error)
            self._failed(subject, error)
        elif not answer.cancelled():
            POOLS.of(subject.key).created += 1
            if not state.breaker.circuits:
                return
            state.breaker = breakers.created(state.breaker)
        self._parts.queue.add(subject.key)

    def _failed(self, subject: Subject, error: ApiError) -> None:
        state, problem = subject.state, problem_of(error)
        now = asyncio.get_running_loop().time()
        news = state.breaker.blocked_until(now) is None
        state.breaker = breakers.failed(
            state.breaker,
            problem,
            template_hash=state.breaker.template_hash,
            now=now,
            wall=time.time(),
            jitter=random.random(),  # noqa: S311  spreads retries; no secret
        )
        if news:
            self.tell_failure(subject, problem)

    def tell_failure(self, subject: Subject, problem: Problem) -> None:
        """Say that the pool gets no agent now, to whoever looks at it."""
        now = asyncio.get_running_loop().time()
        wait = max(0.0, (subject.state.breaker.blocked_until(now) or now) - now)
        self._parts.cache.report_error(subject.key, str(problem), time.time())
        cause, error = problem.cause.value, str(problem)
        log.warning("no agent", pool=str(subject.key), cause=cause, error=error, retry_in_seconds=round(wait, 1))
        text = f"{problem} (next try in {wait:.0f} s)"
        self._parts.events.record(subject.pool, "Warning", "CreateFailed", text)


def _room(body: Body, *, asked: int) -> int:
    """How many more may be asked for; one at least when none is."""
    most = min(MOST_ASKED, MOST_BYTES // len(body.tail))
    return max(most - asked, 0 if asked else 1)


def _forget(subject: Subject, names: Iterable[str]) -> None:
    """What was not asked for is not waited for."""
    for name in names:
        subject.state.expectations.creation_failed(name)
