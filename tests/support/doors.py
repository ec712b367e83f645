"""A unix socket for each port of each Service: the way in for clients outside of a stage's network namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.support.api import Api, Object
from tests.support.relay import relay


class Doors:
    """``NAMESPACE.NAME.PORT`` in ``directory``; whoever connects there comes out at the Service's ClusterIP."""

    def __init__(self, api: Api, directory: Path) -> None:
        self._api = api
        self._directory = directory
        self._servers: dict[str, tuple[str, asyncio.Server]] = {}

    async def run(self) -> None:
        services: dict[str, Object] = {}
        async for gone, service in self._api.watch("/api/v1/services"):
            uid = service["metadata"]["uid"]
            if gone:
                services.pop(uid, None)
            else:
                services[uid] = service
            await self._update(dict(pair for item in services.values() for pair in _doors(item)))

    async def _update(self, wanted: dict[str, tuple[str, int]]) -> None:
        for name in [name for name, (address, _) in self._servers.items() if wanted.get(name, ("",))[0] != address]:
            self._servers.pop(name)[1].close()
            (self._directory / name).unlink(missing_ok=True)
        for name in wanted.keys() - self._servers.keys():
            server = await asyncio.start_unix_server(_forward(wanted[name]), self._directory / name)
            self._servers[name] = wanted[name][0], server


def _doors(service: Object) -> list[tuple[str, tuple[str, int]]]:
    metadata, spec = service["metadata"], service["spec"]
    if spec.get("clusterIP", "None") == "None":
        return []
    prefix = f"{metadata['namespace']}.{metadata['name']}"
    return [(f"{prefix}.{port['port']}", (spec["clusterIP"], port["port"])) for port in spec.get("ports", [])]


def _forward(
    target: tuple[str, int],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            backend = await asyncio.open_connection(*target)
        except OSError:
            writer.transport.abort()
        else:
            await relay((reader, writer), backend)

    return forward
