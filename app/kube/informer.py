"""A list and a watch of one kind of object, as a store that follows the API server through whatever happens to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import structlog

from app.kube.client import Client
from app.kube.errors import ApiError, Status, from_status
from app.model.meta import NamespacedName, ObjectMeta
from app.obs import metrics

PAGE_SIZE = 500
SILENCE = 150.0
"""Seconds without a line after which a watch counts as dead: bookmarks come about once a minute."""
WATCH_SECONDS = 300
"""How long the server is asked to keep a watch; the connection, and with it the server, changes now and then."""
RETRY_FIRST = 0.5
RETRY_MAX = 30.0

log = structlog.get_logger()


class Object(Protocol):
    @property
    def metadata(self) -> ObjectMeta: ...


T = TypeVar("T", bound=Object)


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: tuple[msgspec.Raw, ...] | None = None


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Named(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()


class Relist(Exception):  # noqa: N818  a turn of events, not a mistake
    """The watch cannot go on from where it was."""


class Informer(Generic[T]):
    """``on_change(old, new)`` is called for each object added (None, new), modified, and deleted (old, None).

    A list that fails, or of which a page fails, changes nothing: only a whole list is compared with the store. An
    object that cannot be decoded is left out, with a warning, and stops no other.
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
    ) -> None:
        self._client = client
        self._path = path
        self._resource = path.rpartition("/")[2]
        self._on_change = on_change
        self._selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._decoder = msgspec.json.Decoder(type)
        self._store: dict[NamespacedName, T] = {}
        self._version = ""
        self.synced = asyncio.Event()

    @property
    def store(self) -> Mapping[NamespacedName, T]:
        return self._store

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        delay, cause = RETRY_FIRST, "end"
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                delay, cause = RETRY_FIRST, "end"
                metrics.WATCH_RESTARTS.labels(self._resource, cause).inc()
                continue
            except Relist as why:
                log.info("watch starts over", resource=self._resource, path=self._path, why=str(why))
                self._version, cause = "", "relist"
            except ApiError as error:
                log.warning(
                    "watch failed", resource=self._resource, path=self._path, error=str(error), retry_in_seconds=delay
                )
                cause = "error"
                if error.gone:
                    self._version = ""
            metrics.WATCH_RESTARTS.labels(self._resource, cause).inc()
            await asyncio.sleep(delay * (0.5 + random.random() / 2))  # noqa: S311  spreads retries; no secret
            delay = min(RETRY_MAX, delay * 2)

    async def _list(self) -> None:
        """Fetch every page, then bring the store to what they say, as if each difference had been watched."""
        found: dict[NamespacedName, T] = {}
        kept: set[NamespacedName] = set()
        token = ""
        while True:
            page = await self._page(token)
            for raw in page.items or ():
                item = self._decode(raw)
                if isinstance(item, NamespacedName):
                    kept.add(item)
                elif item:
                    found[item.metadata.key] = item
            token = page.metadata.continue_
            if not token:
                break
        for key in self._store.keys() - found.keys() - kept:
            self._remove(self._store[key])
        for item in found.values():
            self._put(item)
        self._version = page.metadata.resource_version
        self.synced.set()

    async def _page(self, token: str) -> _Page:
        # resourceVersion 0 lets the server answer from its cache; pages come from etcd, so that a first list is exact.
        params = self._params(limit=str(PAGE_SIZE), **({"continue": token} if token else {}))
        body = await self._client.get(self._path, params=params, timeout=60)
        try:
            return msgspec.json.decode(body, type=_Page)
        except msgspec.DecodeError as error:
            raise ApiError(502, "BadAnswer", f"list of {self._path} cannot be read: {error}") from error

    async def _watch(self) -> None:
        params = self._params(
            resourceVersion=self._version, allowWatchBookmarks="true", timeoutSeconds=str(WATCH_SECONDS)
        )
        async for line in self._client.watch(self._path, params, silence=SILENCE):
            if line:
                self._handle(line)

    def _handle(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError as error:
            raise Relist(f"a line of the watch cannot be read: {error}") from error
        if event.type == "ERROR":
            failure = from_status(msgspec.json.decode(event.object, type=Status), code=500)
            raise Relist(str(failure)) if failure.gone else failure
        if event.type == "BOOKMARK":
            self._version = msgspec.json.decode(event.object, type=_Named).metadata.resource_version
            return
        item = self._decode(event.object)
        if item is None or isinstance(item, NamespacedName):
            return
        self._version = item.metadata.resource_version
        if event.type == "DELETED":
            self._remove(item)
        else:
            self._put(item)

    def _decode(self, raw: msgspec.Raw) -> T | NamespacedName | None:
        """The object; its name alone if it cannot be decoded, None if not even that can be read."""
        try:
            return self._decoder.decode(raw)
        except msgspec.DecodeError as error:
            try:
                meta = msgspec.json.decode(raw, type=_Named).metadata
            except msgspec.DecodeError:
                log.warning("object skipped", resource=self._resource, error=str(error))
                return None
            log.warning("object skipped", resource=self._resource, object=str(meta.key), error=str(error))
            return meta.key

    def _put(self, item: T) -> None:
        """Add or renew; one that is not newer than what the store has is an echo of a relist."""
        key, old = item.metadata.key, self._store.get(item.metadata.key)
        if old is not None and old.metadata.uid != item.metadata.uid:
            self._remove(old)
            old = None
        if old is not None and not _is_newer(item.metadata, old.metadata):
            return
        self._store[key] = item
        self._tell(old, item)

    def _remove(self, item: T) -> None:
        """A deletion of another object of that name is an echo."""
        old = self._store.get(item.metadata.key)
        if old is not None and old.metadata.uid == item.metadata.uid:
            del self._store[item.metadata.key]
            self._tell(old, None)

    def _tell(self, old: T | None, new: T | None) -> None:
        try:
            self._on_change(old, new)
        except Exception:
            present: Any = new or old
            log.exception("change not handled", resource=self._resource, object=str(present.metadata.key))

    def _params(self, **params: str) -> dict[str, str]:
        return {key: value for key, value in (self._selectors | params).items() if value}


def _is_newer(new: ObjectMeta, old: ObjectMeta) -> bool:
    """Versions of one object grow (Kubernetes 1.35 says that they may be compared); what is no number is taken."""
    if new.resource_version.isdigit() and old.resource_version.isdigit():
        return int(new.resource_version) > int(old.resource_version)
    return new.resource_version != old.resource_version
