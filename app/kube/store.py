"""What is known of one kind of object, and who is told when that changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog

from app.model.meta import NamespacedName, ObjectMeta

log = structlog.get_logger()


class Object(Protocol):
    @property
    def metadata(self) -> ObjectMeta: ...


T = TypeVar("T", bound=Object)


class Identity(msgspec.Struct, frozen=True, rename="camel"):
    """As little of an object's metadata as tells which object it is, for those that cannot be read as a whole."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""

    @property
    def key(self) -> NamespacedName:
        return NamespacedName(self.namespace, self.name)


class Store(Generic[T]):
    """``on_change(old, new)`` hears of each object added (None, new), changed, and deleted (old, None), once.

    An object with another uid is another object: its namesake is deleted first.
    """

    def __init__(self, on_change: Callable[[T | None, T | None], None], *, resource: str) -> None:
        self._on_change = on_change
        self._resource = resource
        self._objects: dict[NamespacedName, T] = {}

    @property
    def objects(self) -> Mapping[NamespacedName, T]:
        return self._objects

    def has(self, meta: ObjectMeta | Identity) -> bool:
        """Whether that very version of that very object is known."""
        old = self._objects.get(meta.key)
        return (
            old is not None and old.metadata.uid == meta.uid and old.metadata.resource_version == meta.resource_version
        )

    def put(self, item: T) -> None:
        """Add or renew; what the store has already is not told again."""
        meta = item.metadata
        self.drop_namesake(meta)
        old = self._objects.get(meta.key)
        if old is None or old.metadata.resource_version != meta.resource_version:
            self._objects[meta.key] = item
            self._tell(old, item)

    def remove(self, meta: ObjectMeta | Identity) -> None:
        """Forget that very object."""
        old = self._objects.get(meta.key)
        if old is not None and old.metadata.uid == meta.uid:
            del self._objects[meta.key]
            self._tell(old, None)

    def drop_namesake(self, meta: ObjectMeta | Identity) -> None:
        """Another object has this name now, so the one that had it is gone."""
        old = self._objects.get(meta.key)
        if old is not None and old.metadata.uid != meta.uid:
            del self._objects[meta.key]
            self._tell(old, None)

    def has_others_than(self, uids: Mapping[NamespacedName, str]) -> bool:
        """Whether any object that is known is not among these."""
        return any(uids.get(key) != old.metadata.uid for key, old in self._objects.items())

    def keep(self, uids: Mapping[NamespacedName, str]) -> None:
        """Forget every object that is not among these."""
        for key, old in list(self._objects.items()):
            if uids.get(key) != old.metadata.uid:
                del self._objects[key]
                self._tell(old, None)

    def _tell(self, old: T | None, new: T | None) -> None:
        try:
            self._on_change(old, new)
        except Exception:  # one bad object never stops another
            present = new if new is not None else old
            key = str(present.metadata.key) if present is not None else ""
            log.exception("change not handled", resource=self._resource, object=key)
