"""An API server that holds back each request until it is let through, and then its answer until that is let through.

It stores what certificates are about: the Secret, webhook configurations, pods and ConfigMaps.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.kube.errors import ApiError

Manifest = dict[str, Any]


@dataclass
class Request:
    """``answer`` is what it came to once it was carried out; nobody waits for it when its sender has crashed."""

    carry_out: Callable[[], bytes]
    waiter: asyncio.Future[bytes]
    answer: bytes | ApiError | None = None


class Api:
    def __init__(self) -> None:
        self.objects: dict[str, Manifest] = {}
        self.requests: list[Request] = []
        self._version = 0

    def advance(self, request: Request) -> None:
        """Carry it out, or deliver its answer."""
        if request.answer is None:
            try:
                request.answer = request.carry_out()
            except ApiError as error:
                request.answer = error
            if not request.waiter.done():
                return
        self.requests.remove(request)
        if request.waiter.done():
            return
        if isinstance(request.answer, ApiError):
            request.waiter.set_exception(request.answer)
        else:
            request.waiter.set_result(request.answer)

    def put(self, path: str, manifest: Manifest) -> bytes:
        self._version += 1
        meta = manifest.setdefault("metadata", {})
        meta["resourceVersion"] = str(self._version)
        meta.setdefault("uid", path)
        meta["managedFields"] = [{"time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}]
        self.objects[path] = copy.deepcopy(manifest)
        return msgspec.json.encode(manifest)

    def find(self, path: str) -> Manifest:
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        return copy.deepcopy(self.objects[path])

    def of_version(self, path: str, body: Manifest) -> Manifest:
        """The stored object, if ``body`` names no other version."""
        found, wanted = self.find(path), body["metadata"].get("resourceVersion")
        if wanted not in (None, found["metadata"]["resourceVersion"]):
            raise ApiError(409, "Conflict", f"{path} has changed")
        return found


class SimulatedClient:
    """As app.kube.client.Client, for as much as certificates use of it."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def pause(self) -> None:
        """Go on when that is let through."""
        await self._send(lambda: b"")

    async def get(self, path: str, *, params: dict[str, str] | None = None) -> bytes:
        return await self._send(
            lambda: self._list(path, params) if params else msgspec.json.encode(self._api.find(path))
        )

    async def create(self, path: str, body: Manifest) -> bytes:
        def carry_out() -> bytes:
            target = f"{path}/{body['metadata']['name']}"
            if target in self._api.objects:
                raise ApiError(409, "AlreadyExists", f"{target} exists")
            return self._api.put(target, body)

        return await self._send(carry_out)

    async def replace(self, path: str, body: Manifest) -> bytes:
        def carry_out() -> bytes:
            self._api.of_version(path, body)
            return self._api.put(path, body)

        return await self._send(carry_out)

    async def apply(self, path: str, body: Manifest) -> bytes:
        def carry_out() -> bytes:
            if "webhooks" not in body:
                return self._api.put(path, body)
            found = self._api.of_version(path, body)
            for webhook, wanted in zip(found["webhooks"], body["webhooks"], strict=True):
                webhook["clientConfig"] |= wanted["clientConfig"]
            return self._api.put(path, found)

        return await self._send(carry_out)

    async def merge_patch(self, path: str, body: Manifest) -> bytes:
        def carry_out() -> bytes:
            found = self._api.find(path)
            for field, changes in body["metadata"].items():
                merged = {**found["metadata"].get(field, {}), **changes}
                found["metadata"][field] = {key: value for key, value in merged.items() if value is not None}
            return self._api.put(path, found)

        return await self._send(carry_out)

    def _list(self, path: str, params: dict[str, str]) -> bytes:
        label, _, value = params["labelSelector"].partition("=")
        items = [
            item
            for key, item in self._api.objects.items()
            if key.startswith(f"{path}/") and item["metadata"].get("labels", {}).get(label) == value
        ]
        return msgspec.json.encode({"items": items})

    async def _send(self, carry_out: Callable[[], bytes]) -> bytes:
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._api.requests.append(Request(carry_out, waiter))
        return await waiter
