"""A list and a watch of one kind of object, as a store that follows the API server through whatever happens to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Generic, NamedTuple

import msgspec
import structlog

from app.kube.client import Client
from app.kube.errors import ApiError, Status, from_status
from app.kube.store import Identity, Store, T
from app.model.meta import NamespacedName
from app.obs import metrics

PAGE_SIZE = 500
PAGE_TIMEOUT = 60.0
SILENCE = 150.0
"""Seconds without a line after which a watch counts as dead, and all is listed: bookmarks come once a minute."""
WATCH_SECONDS = 300
"""How long the server is asked to keep a watch, at least; twice that at most, so that not all begin anew together."""
SHORT = 1.0
"""Seconds; a watch that the server ends sooner is begun again as after an error."""
HEALTHY = 30.0
"""Seconds after which a watch that fails is not taken for the last failure's next attempt."""
RETRY_FIRST = 0.5
RETRY_MAX = 30.0
UNREADABLE = (ValueError, RecursionError)
"""What msgspec raises for what it cannot decode: its DecodeError is a ValueError, as is UnicodeDecodeError."""

log = structlog.get_logger()


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: tuple[msgspec.Raw, ...] | None = None


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Identified(msgspec.Struct, frozen=True):
    metadata: Identity


class _Relist(Exception):  # noqa: N818  a turn of events, not a mistake
    """The watch cannot go on from where it was."""


class _End(NamedTuple):
    """Why a watch ended: ``end`` (as the server does now and then), ``relist`` or ``error``, and in whose words."""

    cause: str
    why: str = ""


class _Listed(NamedTuple, Generic[T]):
    """``items`` are those that were not known as they are."""

    items: list[T]
    uids: dict[NamespacedName, str]
    version: str


class Informer(Generic[T]):
    """``on_change(old, new)`` is called for each object added (None, new), modified, and deleted (old, None).

    A list that fails, or of which a page fails, changes nothing: only a whole list is compared with the store, and what
    it lacks is gone if another lacks it too. An object that cannot be decoded is left as it was, with a warning, and
    stops no other.
    """

    def __init__(
        self,
        client: Client,
        *,
        path: str,
        type: type[T],  # noqa: A002  as msgspec calls it
        on_change: Callable[[T | None, T | None], None],
        label_selector: str = "",
        field_selector: str = "",
        silence: float = SILENCE,
    ) -> None:
        self._client = client
        self._path = path
        self._resource = path.rpartition("/")[2]
        self._selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._silence = silence
        self._decoder = msgspec.json.Decoder(type)
        self._store: Store[T] = Store(on_change, resource=self._resource)
        self._version = ""
        self.synced = asyncio.Event()

    @property
    def store(self) -> Mapping[NamespacedName, T]:
        return self._store.objects

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        loop, delay = asyncio.get_running_loop(), RETRY_FIRST
        while True:
            begun, version = loop.time(), self._version
            end = await self._follow()
            lasted = loop.time() - begun
            metrics.WATCH_RESTARTS.labels(self._resource, end.cause).inc()
            # A server under load ends watches that cannot keep up: what moved us on is no failure.
            moved = bool(version) and self._version != version
            if lasted >= HEALTHY or moved:
                delay = RETRY_FIRST
            if end.cause == "end" and (lasted >= SHORT or moved):
                continue
            wait = delay * (0.5 + random.random() / 2)  # noqa: S311  spreads retries; no secret
            tell = log.warning if end.cause == "error" else log.info
            tell("watch interrupted", path=self._path, cause=end.cause, why=end.why, retry_in_seconds=round(wait, 1))
            await asyncio.sleep(wait)
            delay = min(RETRY_MAX, delay * 2)

    async def _follow(self) -> _End:
        """List if need be, and watch for as long as that goes well."""
        loop = asyncio.get_running_loop()
        watching = float("inf")
        try:
            if not self._version:
                await self.refresh()
            watching = loop.time()
            await self._watch()
        except _Relist as why:
            self._version = ""
            return _End("relist", str(why))
        except ApiError as error:
            if error.gone:
                self._version = ""
                return _End("relist", str(error))
            if isinstance(error.__cause__, TimeoutError) and loop.time() >= watching + self._silence:
                self._version = ""  # one from before etcd was restored is watched without a word
                return _End("relist", "silence")
            if 400 <= error.status < 500 and error.status not in (401, 429):
                self._version = ""  # the request itself is not taken: it will not be with the same version again
            return _End("error", str(error))
        return _End("end")

    async def refresh(self) -> None:
        """Bring the store to what a list says, as if each difference had been watched; also beside a watch that lags.

        Then it shows all that was there at the call. What is missing is looked for in a second list before it is
        forgotten: one that is empty or partial by mistake must not cost what still runs. Raises ApiError, having
        changed nothing.
        """
        listed = await self._whole()
        if self._store.has_others_than(listed.uids):
            log.info("listing again", path=self._path, why="objects that are known were not listed")
            listed = await self._whole()
        if _is_older(listed.version, self._version):
            return  # the watch was quicker, and has shown more
        self._store.keep(listed.uids)
        for item in listed.items:
            self._store.put(item)
        self._version = listed.version
        self.synced.set()

    async def _whole(self) -> _Listed[T]:
        """Every page of a list; raises ApiError when one of them fails."""
        items: list[T] = []
        uids: dict[NamespacedName, str] = {}
        token = ""
        while True:
            page = await self._page(token)
            for raw in page.items or ():
                self._sort_in(raw, items, uids)
            token = page.metadata.continue_
            if not token:
                return _Listed(items, uids, page.metadata.resource_version)

    async def _page(self, token: str) -> _Page:
        # Without a resourceVersion the list is as new as etcd: one from a cache could be older than what was watched.
        params = self._params(limit=str(PAGE_SIZE), **{"continue": token})
        body = await self._client.get(self._path, params=params, timeout=PAGE_TIMEOUT)
        try:
            page = msgspec.json.decode(body, type=_Page)
        except UNREADABLE as error:
            raise self._bad_list(error) from error
        if not page.metadata.resource_version:
            raise self._bad_list("no resourceVersion")
        return page

    def _sort_in(self, raw: msgspec.Raw, items: list[T], uids: dict[NamespacedName, str]) -> None:
        try:
            meta = msgspec.json.decode(raw, type=_Identified).metadata
        except UNREADABLE as error:
            raise self._bad_list(error) from error
        uids[meta.key] = meta.uid
        # What is known already is not read and kept a second time: a list would double the memory.
        if not self._store.has(meta) and (item := self._decode(raw)) is not None:
            items.append(item)

    def _bad_list(self, why: object) -> ApiError:
        return ApiError(502, "BadAnswer", f"list of {self._path} cannot be read: {why}")

    async def _watch(self) -> None:
        seconds = round(WATCH_SECONDS * (1 + random.random()))  # noqa: S311  no secret
        params = self._params(
            resourceVersion=self._version, allowWatchBookmarks="true", timeoutSeconds=str(max(1, seconds))
        )
        async with aclosing(self._client.watch(self._path, params, silence=self._silence)) as lines:
            async for line in lines:
                if line:
                    self._handle(line)

    def _handle(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=_Line)
            if event.type == "ERROR":
                raise _Relist(str(from_status(msgspec.json.decode(event.object, type=Status), code=500)))
            item = self._decode(event.object) if event.type in ("ADDED", "MODIFIED") else None
            meta = item.metadata if item is not None else msgspec.json.decode(event.object, type=_Identified).metadata
        except UNREADABLE as error:
            raise _Relist(f"a line of the watch cannot be read: {error}") from error
        if _is_older(meta.resource_version, self._version):
            return
        self._version = meta.resource_version
        if item is not None:
            self._store.put(item)
        elif event.type == "DELETED":
            self._store.remove(meta)
        elif event.type != "BOOKMARK":
            self._store.drop_namesake(meta)

    def _decode(self, raw: msgspec.Raw) -> T | None:
        try:
            return self._decoder.decode(raw)
        except UNREADABLE as error:
            log.warning("object skipped", resource=self._resource, object=_name(raw), error=str(error))
            return None

    def _params(self, **params: str) -> dict[str, str]:
        return {key: value for key, value in (self._selectors | params).items() if value}


def _is_older(version: str, seen: str) -> bool:
    """Versions of one resource grow (Kubernetes 1.35 says that they may be compared); what is no number is taken."""
    return version.isdecimal() and seen.isdecimal() and int(version) < int(seen)


def _name(raw: msgspec.Raw) -> str:
    try:
        return str(msgspec.json.decode(raw, type=_Identified).metadata.key)
    except UNREADABLE:
        return "unknown"
