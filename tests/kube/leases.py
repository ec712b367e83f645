"""A Lease in memory behind any number of API servers, each of which a test can cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from app.kube.client import APPLY_PATCH
from tests.kube.faults import Handler, answer, failure


class LeaseStore:
    """One Lease; None until somebody creates it. Patches need the resourceVersion, as the elector's carry it."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self._stirred = asyncio.Event()

    @property
    def holder(self) -> str | None:
        holder: str | None = self.lease["spec"].get("holderIdentity") if self.lease else None
        return holder

    async def until(self, true: Callable[[], bool]) -> None:
        """Look again whenever there was a request."""
        while not true():
            self._stirred.clear()
            await self._stirred.wait()

    def stir(self) -> None:
        self._stirred.set()

    def put(self, spec: dict[str, Any]) -> web.Response:
        self.version += 1
        self.stir()
        meta = {"name": "velda-apiserver", "namespace": "ns", "resourceVersion": str(self.version)}
        self.lease = {"kind": "Lease", "metadata": meta, "spec": spec}
        return answer(self.lease)

    def door(self) -> Door:
        return Door(self)


class Door:
    """One replica's way to the Lease: ``open``, ``silent`` (no answers), ``broken`` (500), ``garbage``."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self.state = "open"
        self.requests = 0
        self.rival: dict[str, Any] | None = None
        """Makes the Lease the very moment before this replica would."""

    def handler(self) -> Handler:
        return self._handle

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self._store.stir()
        if self.state == "silent":
            await asyncio.Event().wait()
        if self.state == "garbage":
            return web.Response(body=b'{"spec": {"holderIdentity": 7}}')
        if self.state == "broken":
            return failure(500, "InternalError", "etcd is down")
        store, lease = self._store, self._store.lease
        if request.content_type == APPLY_PATCH:
            assert request.query["force"] == "false"
            if self.rival:
                store.put(self.rival)
                lease, self.rival = store.lease, None
            return failure(409, "Conflict") if lease else store.put(msgspec.json.decode(await request.read())["spec"])
        if lease is None:
            return failure(404, "NotFound")
        if request.method == "GET":
            return answer(lease)
        body = msgspec.json.decode(await request.read())
        if body["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]:
            return failure(409, "Conflict")
        return store.put(lease["spec"] | body["spec"])
