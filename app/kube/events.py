"""Events on AgentPools, as `kubectl describe` shows them. Recording never blocks and never fails."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, OrderedDict
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec
import structlog

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.agentpool import AgentPool
from app.model.meta import API_VERSION, KIND, MANAGER, NamespacedName

WAITING = 1000
"""Events that may wait to be written."""
WAITING_ALIKE = 20
"""Of one pool and reason: a thousand deletions must not keep others waiting."""
REMEMBERED = 4096
"""Events that may be counted up instead of repeated."""
COUNT_FOR = 3600.0
"""Seconds for which an equal event is counted up; the API server forgets events after an hour."""
PACE = 0.05
"""Seconds between two writes, so that events take no more than a small part of the API server's time."""
TIMEOUT = 10.0
MESSAGE_LIMIT = 1024
"""Characters (source: the note's limit in events.k8s.io)."""
NAME_LIMIT = 200
"""Characters of a pool's name in the event's own, which has 253 in all."""

log = structlog.get_logger()


class _Same(NamedTuple):
    """Events that are equal in these are one event with a count."""

    uid: str
    type: str
    reason: str
    message: str


class _Waiting(msgspec.Struct):
    key: NamespacedName
    first: datetime
    last: datetime
    count: int = 1


class _Known(msgspec.Struct):
    name: str
    since: float
    count: int


class EventRecorder:
    """``instance`` is this replica's name, told in each event."""

    def __init__(self, client: Client, *, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._waiting: OrderedDict[_Same, _Waiting] = OrderedDict()
        self._alike: Counter[tuple[str, str]] = Counter()
        self._wake = asyncio.Event()
        self._known: OrderedDict[_Same, _Known] = OrderedDict()

    def record(self, pool: AgentPool, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        """Tell it; when too much waits to be told, this is dropped."""
        meta, now = pool.metadata, datetime.now(UTC)
        text = message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
        same = _Same(meta.uid, type, reason, text)
        if waiting := self._waiting.get(same):
            waiting.count, waiting.last = waiting.count + 1, now
        elif len(self._waiting) >= WAITING or self._alike[meta.uid, reason] >= WAITING_ALIKE:
            log.info("event dropped", pool=str(meta.key), reason=reason, message=text)
        else:
            self._alike[meta.uid, reason] += 1
            self._waiting[same] = _Waiting(meta.key, now, now)
            self._wake.set()

    async def run(self) -> None:
        """Write what is recorded, one after the other, until cancelled."""
        while True:
            await self._wake.wait()
            if not self._waiting:
                self._wake.clear()
                continue
            same, waiting = self._waiting.popitem(last=False)
            self._alike -= Counter([(same.uid, same.reason)])
            try:
                await self._write(same, waiting)
            except ApiError as error:
                if not _is_ending(error):
                    log.warning("event not written", pool=str(waiting.key), reason=same.reason, error=str(error))
            await asyncio.sleep(PACE)

    async def _write(self, same: _Same, waiting: _Waiting) -> None:
        now = asyncio.get_running_loop().time()
        known = self._known.get(same)
        if known and now < known.since + COUNT_FOR and await self._count_up(known, waiting):
            return
        known = _Known(f"{waiting.key.name[:NAME_LIMIT].rstrip('-.')}.{secrets.token_hex(8)}", now, waiting.count)
        body = self._body(same, waiting, known.name)
        await self._client.create(paths.events(waiting.key.namespace), body, timeout=TIMEOUT)
        self._known[same] = known
        self._known.move_to_end(same)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def _count_up(self, known: _Known, waiting: _Waiting) -> bool:
        """False if the event is there no more."""
        count = known.count + waiting.count
        patch = {"count": count, "lastTimestamp": _time(waiting.last)}
        path = paths.event(NamespacedName(waiting.key.namespace, known.name))
        try:
            await self._client.merge_patch(path, patch, timeout=TIMEOUT)
        except ApiError as error:
            if error.not_found:
                return False
            raise
        known.count = count
        return True

    def _body(self, same: _Same, waiting: _Waiting, name: str) -> dict[str, Any]:
        key = waiting.key
        about = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": key.namespace,
            "name": key.name,
            "uid": same.uid,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": key.namespace},
            "involvedObject": about,
            "type": same.type,
            "reason": same.reason,
            "message": same.message,
            "source": {"component": MANAGER, "host": self._instance},
            "reportingComponent": MANAGER,
            "reportingInstance": self._instance,
            "firstTimestamp": _time(waiting.first),
            "lastTimestamp": _time(waiting.last),
            "count": waiting.count,
        }


def _is_ending(error: ApiError) -> bool:
    """The namespace is gone, or being deleted: nobody may write into it."""
    return error.not_found or any(cause.reason == "NamespaceTerminating" for cause in error.causes)


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
