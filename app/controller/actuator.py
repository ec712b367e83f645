"""Carries out creations, deletions and hints, until the API server has given a definite answer to each.

Which call is next is core/calls' business. Here a few workers, one for each call under way, take them as they come: a
call that waits, for its turn or for its next attempt, is no task and holds no slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog
from opentelemetry.context import Context
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from app.core.calls import Calls, Kind, Taken, Throttle
from app.core.diagnosis import Cause, Problem
from app.kube import paths
from app.kube.client import METADATA, Client
from app.kube.errors import ApiError
from app.model.meta import NamespacedName
from app.obs import spans

IN_FLIGHT = 384
"""Calls under way at once, in the whole process. With fewer, what the cluster does with the first of many pods holds up
the others; more give nothing.
"""
UNWARNED = {"fieldValidation": "Ignore"}
"""Nobody would read warnings of unknown fields here, the webhook has told the pool's author; a third of the time."""
RETRY_FIRST = 0.5
RETRY_MAX = 15.0
TOLD_AFTER = 3
"""Refusals for overload after which a creation's pool is told: until then it is nobody's trouble."""

Answer = asyncio.Future[ApiError | None]
"""None once the call is carried out, else why it never will be."""

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class _Call:
    pool: NamespacedName
    send: Callable[[], Awaitable[object]]
    answer: Answer
    doubtful: Callable[[ApiError], None] | None = None
    """Told of each attempt without a definite answer; a call without it is not tried again."""
    doubt: ApiError | None = None
    """The last such attempt's."""
    attempts: int = 0
    place: Context | None = field(default_factory=spans.here)
    told: Mapping[str, object] = field(default_factory=get_contextvars)
    """What lines about it say besides: its reconcile's, whichever worker's turn it is."""


class Actuator:
    """Creates, deletes and annotates worker pods; ``pool`` is whose turn it takes.

    A name is chosen before the first attempt and a deletion carries the pod's uid, so that an attempt whose answer was
    lost can be repeated without making a second pod or removing a new one.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._calls: Calls[NamespacedName, _Call] = Calls(IN_FLIGHT)
        self._throttle = Throttle(IN_FLIGHT)
        self._workers: set[asyncio.Task[None]] = set()
        self._sleeping: dict[_Call, asyncio.TimerHandle] = {}
        self._creating: dict[NamespacedName, _Call] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False

    async def close(self) -> None:
        """Stop all that waits or is under way, and take no more; what is not answered is cancelled."""
        self._closed = True
        for call in (*self._calls.clear(), *self._sleeping):
            call.answer.cancel()
        for handle in self._sleeping.values():
            handle.cancel()
        self._sleeping.clear()
        if self._pause:
            self._pause.cancel()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def create(
        self,
        pod: NamespacedName,
        body: bytes,
        *,
        pool: NamespacedName,
        doubtful: Callable[[ApiError], None],
        urgent: bool = False,
    ) -> Answer:
        """Create the pod of that name; ``urgent`` when a session waits for it.

        ``doubtful`` is told of each attempt that ended without a definite answer, before it is repeated.
        """
        call = self._creating[pod] = _Call(pool, partial(self._create, pod, body), _answer(), doubtful)
        call.answer.add_done_callback(lambda _: self._creating.pop(pod, None))
        return self._submit(pool, Kind.URGENT if urgent else Kind.CREATE, call)

    def seen(self, pod: NamespacedName) -> None:
        """The watch has shown the pod, which answers its creation: one more attempt could only make it again."""
        if call := self._creating.get(pod):
            if sleeping := self._sleeping.pop(call, None):
                sleeping.cancel()
            _settle(call, None)

    def delete(self, pod: NamespacedName, *, uid: str, pool: NamespacedName) -> Answer:
        """Delete that very pod; carried out once it is gone or going."""
        send = partial(self._delete, pod, uid)
        return self._submit(pool, Kind.REMOVE, _Call(pool, send, _answer(), lambda error: None))

    def annotate(
        self, pod: NamespacedName, annotations: Mapping[str, str], *, uid: str, pool: NamespacedName
    ) -> Answer:
        """Set the pod's annotations once all else had its turn; tried once, for it is no loss."""
        body = {"metadata": {"uid": uid, "annotations": annotations}}
        send = partial(self._client.merge_patch, paths.pod(pod), body, patient=False)
        return self._submit(pool, Kind.HINT, _Call(pool, send, _answer()))

    def withdraw(self, pool: NamespacedName) -> None:
        """Send no more of the pool's creations and hints.

        The answer of what was never sent is cancelled; of what was tried in vain it is the last error.
        """
        for call in self._calls.withdraw(pool, Kind.URGENT, Kind.CREATE, Kind.HINT):
            _give_up(call)
        for call in [call for call in self._creating.values() if call.pool == pool]:
            call.doubtful = None
            if sleeping := self._sleeping.pop(call, None):
                sleeping.cancel()
                _give_up(call)

    async def _create(self, pod: NamespacedName, body: bytes) -> None:
        try:
            await self._client.create(paths.pods(pod.namespace), body, params=UNWARNED, patient=False, accept=METADATA)
        except ApiError as error:
            if not error.already_exists:
                raise
        log.debug("pod created", namespace=pod.namespace, pod=pod.name)

    async def _delete(self, pod: NamespacedName, uid: str) -> None:
        try:
            await self._client.delete(paths.pod(pod), uid=uid, patient=False)
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise

    # Turns.

    def _submit(self, pool: NamespacedName, kind: Kind, call: _Call) -> Answer:
        if self._closed:
            call.answer.cancel()
            return call.answer
        self._calls.add(pool, kind, call)
        self._start()
        return call.answer

    def _start(self) -> None:
        """Start what may start now."""
        while taken := self._take():
            worker = asyncio.create_task(self._work(taken), name=f"{taken.kind.name.lower()} call")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    def _take(self) -> Taken[NamespacedName, _Call] | None:
        return None if self._pause else self._calls.take()

    async def _work(self, taken: Taken[NamespacedName, _Call] | None) -> None:
        """One call after the other, while there are any."""
        while taken:
            try:
                await self._attempt(taken)
            finally:
                self._calls.done(taken.pool, taken.kind)
            taken = self._take()
            self._start()

    async def _attempt(self, taken: Taken[NamespacedName, _Call]) -> None:
        call = taken.call
        if call.answer.done():
            return
        clear_contextvars()
        bind_contextvars(**call.told)
        try:
            with spans.under(call.place):
                await call.send()
        except asyncio.CancelledError:
            call.answer.cancel()
            raise
        except ApiError as error:
            self._failed(taken, error)
        except Exception as error:  # a fault of ours, and no reason to keep others waiting
            log.exception("call failed", pool=str(taken.pool), kind=taken.kind.name)
            _settle(call, ApiError(0, "Internal", str(error)))
        else:
            self._taken(call, None)

    def _taken(self, call: _Call, error: ApiError | None) -> None:
        """The API server has answered, one way or the other."""
        self._throttle.taken()
        self._calls.limit = self._throttle.limit
        _settle(call, error)

    def _failed(self, taken: Taken[NamespacedName, _Call], error: ApiError) -> None:
        call, overload = taken.call, is_overload(error)
        if overload:
            self._slow_down(error)
        if not is_doubtful(error):
            self._taken(call, error)
        elif call.doubtful is None:
            _settle(call, error)
        else:
            call.attempts, call.doubt = call.attempts + 1, error
            if call.attempts >= TOLD_AFTER or not overload:
                call.doubtful(error)
            delay = min(RETRY_MAX, RETRY_FIRST * 2.0 ** (call.attempts - 1))
            loop = asyncio.get_running_loop()
            self._sleeping[call] = loop.call_later(max(delay, error.retry_after or 0.0), self._again, taken)

    def _again(self, taken: Taken[NamespacedName, _Call]) -> None:
        del self._sleeping[taken.call]
        self._calls.add(taken.pool, taken.kind, taken.call)
        self._start()

    def _slow_down(self, error: ApiError) -> None:
        loop = asyncio.get_running_loop()
        self._throttle.overloaded(now=loop.time(), retry_after=error.retry_after)
        self._calls.limit = self._throttle.limit
        if self._pause:
            self._pause.cancel()
        else:
            log.warning("API server overloaded", in_flight_limit=self._calls.limit, error=str(error))
        self._pause = loop.call_at(self._throttle.paused_until, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._start()


def is_doubtful(error: ApiError) -> bool:
    """No answer, or one that says nothing about the object: the request may have been carried out."""
    return error.status in (0, 429) or error.status >= 500


def is_overload(error: ApiError) -> bool:
    """It concerns every call, not this one. What an admission webhook answers is passed on with the webhook's code."""
    return error.status in (429, 503) and "admission webhook" not in error.message


def problem_of(error: ApiError) -> Problem:
    """What a failed creation says about the pool. An exceeded quota can be waited for, a refusal cannot."""
    if is_doubtful(error):
        return Problem(Cause.UNREACHABLE, error.reason or "NoAnswer", error.message)
    quota = error.status == 403 and "exceeded quota" in error.message
    return Problem(Cause.QUOTA if quota else Cause.REFUSED, error.reason or str(error.status), error.message)


def _answer() -> Answer:
    return asyncio.get_running_loop().create_future()


def _give_up(call: _Call) -> None:
    if call.doubt:
        _settle(call, call.doubt)
    else:
        call.answer.cancel()


def _settle(call: _Call, error: ApiError | None) -> None:
    if not call.answer.done():
        call.answer.set_result(error)
