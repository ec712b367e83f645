"""The administrator's requests and watches of a stage: a client apart, so that a fault of ours cannot hide here."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec
import yaml

Object = dict[str, Any]
JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
_RETRY = 0.5


class RequestError(Exception):
    """The API server refused: ``status`` is HTTP's, the text its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Change(NamedTuple):
    """What a watch saw: ``gone`` or as it is now."""

    gone: bool
    object: Object


class Api:
    """One session; paths as in the API (``/api/v1/pods``)."""

    def __init__(self, kubeconfig: Path) -> None:
        self._server, self._context = credentials(kubeconfig)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._context, limit=64)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(self._server, connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str) -> Object:
        return await self._request("GET", path)

    async def create(self, path: str, body: Object) -> Object:
        return await self._request("POST", path, body)

    async def patch(self, path: str, body: Object, *, kind: str = MERGE) -> Object:
        return await self._request("PATCH", path, body, kind=kind)

    async def delete(self, path: str, *, uid: str, grace: int | None = None) -> None:
        """Delete that very object; one that is gone already is no error."""
        body: Object = {"preconditions": {"uid": uid}}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._request("DELETE", path, body)
        except RequestError as error:
            if error.status not in (404, 409):
                raise

    async def watch(self, path: str, *, selector: str = "") -> AsyncIterator[Change]:
        """Every object that there is, then every change, for ever; what went unseen between two watches too."""
        known: dict[str, Object] = {}
        while True:
            try:
                async for change in self._list_and_watch(path, {"labelSelector": selector}, known):
                    yield change
            except (aiohttp.ClientError, RequestError, TimeoutError):
                await asyncio.sleep(_RETRY)

    async def _list_and_watch(
        self, path: str, params: Mapping[str, str], known: dict[str, Object]
    ) -> AsyncIterator[Change]:
        listed = await self._request("GET", path, params=params)
        present = {item["metadata"]["uid"]: item for item in listed["items"]}
        for uid in known.keys() - present.keys():
            yield Change(True, known.pop(uid))
        for uid, item in present.items():
            known[uid] = item
            yield Change(False, item)
        params = {**params, "watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
        async with self._session.get(path, params=params) as response:
            async for line in _lines(response.content):
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    return
                item = event["object"]
                gone = event["type"] == "DELETED"
                known.pop(item["metadata"]["uid"], None)
                if not gone:
                    known[item["metadata"]["uid"]] = item
                yield Change(gone, item)

    async def _request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        kind: str = JSON,
        params: Mapping[str, str] | None = None,
    ) -> Object:
        data = None if body is None else msgspec.json.encode(body)
        async with self._session.request(
            method, path, data=data, headers={"Content-Type": kind}, params=params
        ) as response:
            answer: Object = msgspec.json.decode(await response.read())
            if response.status >= 400:
                raise RequestError(response.status, answer.get("message", ""))
            return answer


def credentials(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """The server's URL and how to talk to it, from a kubeconfig of ours (tests/support/pki.py)."""
    document = yaml.safe_load(kubeconfig.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    context = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]))
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
        pair.write(_decode(user["client-certificate-data"]) + _decode(user["client-key-data"]))
        pair.flush()
        context.load_cert_chain(pair.name)
    return cluster["server"], context


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: aiohttp's own reader has a limit."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _decode(data: str) -> str:
    return base64.b64decode(data).decode()
