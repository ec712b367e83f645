"""Events on AgentPools, as `kubectl describe` shows them. Recording never blocks and never fails."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec
import structlog

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.agentpool import AgentPool
from app.model.meta import API_VERSION, KIND, MANAGER, NamespacedName

QUEUE_SIZE = 1000
REMEMBERED = 4096
"""Events that may be counted up instead of repeated."""
COUNT_FOR = 3600.0
"""Seconds for which an equal event is counted up; the API server forgets events after an hour."""
MESSAGE_LIMIT = 1024
"""Characters (source: events.k8s.io note)."""

log = structlog.get_logger()


class _Same(NamedTuple):
    """Events that are equal in these are one event with a count."""

    uid: str
    type: str
    reason: str
    message: str


class _Known(msgspec.Struct):
    name: str
    first: float
    count: int = 1


class _Recorded(NamedTuple):
    same: _Same
    key: NamespacedName
    when: datetime


class EventRecorder:
    """``instance`` is this replica's name, told in each event."""

    def __init__(self, client: Client, *, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._queue: asyncio.Queue[_Recorded] = asyncio.Queue(QUEUE_SIZE)
        self._known: OrderedDict[_Same, _Known] = OrderedDict()

    def record(self, pool: AgentPool, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        """Tell it; when too much waits to be told, this is dropped."""
        meta = pool.metadata
        text = message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
        try:
            self._queue.put_nowait(_Recorded(_Same(meta.uid, type, reason, text), meta.key, datetime.now(UTC)))
        except asyncio.QueueFull:
            log.warning("event dropped", pool=str(meta.key), reason=reason)

    async def run(self) -> None:
        """Write what is recorded, one after the other, until cancelled."""
        while True:
            recorded = await self._queue.get()
            try:
                await self._write(recorded)
            except ApiError as error:
                # Nobody may write into a namespace that is being deleted.
                if error.status not in (403, 404):
                    log.warning("event not written", pool=str(recorded.key), error=str(error))

    async def _write(self, recorded: _Recorded) -> None:
        loop = asyncio.get_running_loop()
        known = self._known.get(recorded.same)
        if known and loop.time() < known.first + COUNT_FOR and await self._count_up(recorded, known):
            return
        known = _Known(name=f"{recorded.key.name}.{secrets.token_hex(8)}", first=loop.time())
        await self._client.create(paths.events(recorded.key.namespace), self._body(recorded, known.name))
        self._known[recorded.same] = known
        self._known.move_to_end(recorded.same)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def _count_up(self, recorded: _Recorded, known: _Known) -> bool:
        patch = {"count": known.count + 1, "lastTimestamp": _time(recorded.when)}
        try:
            await self._client.merge_patch(paths.event(NamespacedName(recorded.key.namespace, known.name)), patch)
        except ApiError as error:
            if error.not_found:
                return False
            raise
        known.count += 1
        return True

    def _body(self, recorded: _Recorded, name: str) -> dict[str, Any]:
        same, key, when = recorded
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
            "firstTimestamp": _time(when),
            "lastTimestamp": _time(when),
            "count": 1,
        }


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
