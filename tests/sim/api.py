"""The API server of the simulation: objects with uids, resourceVersions, preconditions, finalizers, quota and GC.

It answers at once and always tells the truth; what networks and load make of that is in tests/sim/client.py.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

import msgspec

from app.kube.errors import ApiError
from app.model.meta import FINALIZER, POOL_LABEL

EPOCH = 1_800_000_000.0
PODS, POOLS, REVISIONS = "pods", "agentpools", "controllerrevisions"
QUOTAS, CONFIG_MAPS = "resourcequotas", "configmaps"
WATCHED = (PODS, POOLS, REVISIONS, QUOTAS)
GRACE = 30

Object: TypeAlias = dict[str, Any]
Key = tuple[str, str]


class Change(NamedTuple):
    """One event of a watch."""

    version: int
    time: float
    line: bytes


class Api:
    """``now`` gives virtual seconds; ``on_pod`` hears what a kubelet does: added, deleting, gone."""

    def __init__(self, *, now: Callable[[], float], on_pod: Callable[[str, Object], None]) -> None:
        self.now = now
        self.version = 1
        self.objects: dict[str, dict[Key, Object]] = {}
        self.changes: dict[str, list[Change]] = {plural: [] for plural in WATCHED}
        self.oldest: dict[str, int] = dict.fromkeys(WATCHED, 0)
        """Watches from before this version are refused (410): the history was compacted."""
        self.wake: Callable[[str], None] = lambda plural: None
        self.collect: Callable[[Object], None] = lambda pool: None
        """Told of each pool that is gone, whose dependents are garbage."""
        self.owners: dict[str, set[str]] = {}
        """By pod uid: the uids of all pools that ever controlled it."""
        self.refusals: dict[str, ApiError] = {}
        """Of an admission webhook, by namespace."""
        self._on_pod = on_pod
        self._serial = 0

    # Reading.

    def get(self, plural: str, key: Key) -> Object:
        found = self.objects.get(plural, {}).get(key)
        if found is None:
            raise ApiError(404, "NotFound", f"{plural} {key[0]}/{key[1]} not found")
        return found

    def find(self, plural: str, key: Key) -> Object | None:
        return self.objects.get(plural, {}).get(key)

    def all(self, plural: str) -> list[Object]:
        return list(self.objects.get(plural, {}).values())

    def pods_of(self, pool_uid: str) -> list[Object]:
        return [pod for pod in self.all(PODS) if controller(pod) == pool_uid]

    def since(self, plural: str, version: int) -> int:
        """Where the changes after that version begin; raises ApiError when they are not kept any more."""
        if version < self.oldest[plural]:
            raise ApiError(410, "Expired", "too old resource version")
        return bisect_right(self.changes[plural], version, key=lambda change: change.version)

    # Writing. All raise ApiError.

    def create(self, plural: str, body: Object) -> Object:
        meta = body["metadata"]
        key = (meta["namespace"], meta["name"])
        if key in self.objects.get(plural, {}):
            raise ApiError(409, "AlreadyExists", f"{plural} {key[1]} already exists")
        if plural == PODS:
            self._admit(key[0])
        self._serial += 1
        born = datetime.fromtimestamp(EPOCH + self.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made: Object = {**body, "metadata": {**meta, "uid": f"u{self._serial}", "creationTimestamp": born}}
        if plural == POOLS:
            made["metadata"]["generation"] = 1
        if plural == PODS:
            made |= {"spec": dict(body["spec"]), "status": {"phase": "Pending"}}
        self.objects.setdefault(plural, {})[key] = made
        self._changed(plural, "ADDED", made)
        if plural == PODS:
            self._count(key[0])
            self._on_pod("added", made)
        return made

    def _admit(self, namespace: str) -> None:
        if refusal := self.refusals.get(namespace):
            raise refusal
        quota = self.find(QUOTAS, (namespace, "quota"))
        if quota and self.counted(namespace) >= int(quota["spec"]["hard"]["pods"]):
            hard = quota["spec"]["hard"]["pods"]
            raise ApiError(403, "Forbidden", f"pods is forbidden: exceeded quota: quota, limited: pods={hard}")

    def counted(self, namespace: str) -> int:
        """Pods that a quota counts."""
        mine = (pod for (ns, _), pod in self.objects.get(PODS, {}).items() if ns == namespace)
        return sum(pod["status"]["phase"] not in ("Succeeded", "Failed") for pod in mine)

    def _count(self, namespace: str) -> None:
        if quota := self.find(QUOTAS, (namespace, "quota")):
            self.write(QUOTAS, quota, status={"used": {"pods": str(self.counted(namespace))}})

    def apply_status(self, plural: str, key: Key, body: Object) -> Object:
        found = self.get(plural, key)
        if body["metadata"].get("uid", uid(found)) != uid(found):
            raise ApiError(409, "Conflict", "uid mismatch")
        if found.get("status") == body["status"]:
            return found
        return self.write(plural, found, status=copy.deepcopy(body["status"]))

    def patch_meta(self, plural: str, key: Key, patch: Object) -> Object:
        """A merge patch of metadata, with uid and resourceVersion as preconditions."""
        found = self.get(plural, key)
        meta = dict(patch["metadata"])
        for name in ("uid", "resourceVersion"):
            if meta.pop(name, found["metadata"][name]) != found["metadata"][name]:
                raise ApiError(409, "Conflict", f"{name} mismatch")
        if FINALIZER in meta.get("finalizers", ()) and deleting(found) and FINALIZER not in finalizers(found):
            raise ApiError(422, "Invalid", "no new finalizers can be added if the object is being deleted")
        if "annotations" in meta:
            meta["annotations"] = {**(found["metadata"].get("annotations") or {}), **meta["annotations"]}
        written = self.write(plural, found, metadata={**found["metadata"], **meta})
        if deleting(written) and not finalizers(written):
            self.remove(plural, written)
        return written

    def edit_spec(self, key: Key, spec: Any) -> Object:
        found = self.get(POOLS, key)
        meta = {**found["metadata"], "generation": found["metadata"]["generation"] + 1}
        return self.write(POOLS, found, metadata=meta, spec=spec)

    def delete(self, plural: str, key: Key, *, uid_is: str | None = None, grace: int = GRACE) -> None:
        found = self.get(plural, key)
        if uid_is is not None and uid(found) != uid_is:
            raise ApiError(409, "Conflict", "uid precondition failed")
        immediate = plural == PODS and (not found["spec"].get("nodeName") or grace == 0)
        if immediate or (plural != PODS and not finalizers(found)):
            self.remove(plural, found)
        elif not deleting(found):
            at = datetime.fromtimestamp(EPOCH + self.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            meta = {**found["metadata"], "deletionTimestamp": at, "deletionGracePeriodSeconds": grace}
            going = self.write(plural, found, metadata=meta)
            if plural == PODS:
                self._on_pod("deleting", going)

    def remove(self, plural: str, found: Object) -> None:
        """It is gone."""
        key = key_of(found)
        present = self.objects.get(plural, {}).get(key)
        if present is None or uid(present) != uid(found):
            return
        del self.objects[plural][key]
        self._changed(plural, "DELETED", present)
        if plural == PODS:
            self._count(key[0])
            self._on_pod("gone", present)
        if plural == POOLS:
            self.collect(present)

    def write(self, plural: str, found: Object, **parts: Any) -> Object:
        """Replace top-level parts of an object, whatever they are."""
        written = {**found, **parts}
        self.objects[plural][key_of(found)] = written
        self._changed(plural, "MODIFIED", written)
        return written

    def _changed(self, plural: str, kind: str, what: Object) -> None:
        self.version += 1
        what["metadata"] = {**what["metadata"], "resourceVersion": str(self.version)}
        if plural == PODS and (owner := controller(what)):
            self.owners.setdefault(uid(what), set()).add(owner)
        if plural not in self.changes or (plural == PODS and not label(what)):
            return
        line = msgspec.json.encode({"type": kind, "object": what})
        self.changes[plural].append(Change(self.version, self.now(), line))
        self.wake(plural)

    def compact(self, plural: str) -> None:
        """Forget the history: watches that begin before now must list again."""
        self.oldest[plural] = self.version


def uid(what: Object) -> str:
    return str(what["metadata"]["uid"])


def key_of(what: Object) -> Key:
    return what["metadata"]["namespace"], what["metadata"]["name"]


def label(what: Object, name: str = POOL_LABEL) -> str:
    return str((what["metadata"].get("labels") or {}).get(name, ""))


def deleting(what: Object) -> bool:
    return "deletionTimestamp" in what["metadata"]


def finished(pod: Object) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def finalizers(what: Object) -> list[str]:
    return list(what["metadata"].get("finalizers") or ())


def controller(what: Object) -> str:
    owners = what["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")
