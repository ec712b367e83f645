"""The endpoint in use, renewed when its token is due or was refused."""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog

from app.kube.endpoint import Endpoint, Source
from app.settings import SettingsError

RENEW_TIMEOUT = 60.0
RENEW_RETRY = 5.0
"""Seconds until credentials are asked for again when they could not be renewed."""

log = structlog.get_logger()


class Credentials:
    """Those who need a renewal together get the same one."""

    def __init__(self, source: Source, endpoint: Endpoint) -> None:
        self._source = source
        self._endpoint = endpoint
        self._renewing: asyncio.Task[Endpoint] | None = None

    async def current(self) -> Endpoint:
        endpoint = self._endpoint
        if endpoint.expires is None or time.monotonic() < endpoint.expires:
            return endpoint
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
        return await asyncio.shield(self._renewing)

    def refused(self, endpoint: Endpoint) -> None:
        """The server does not know these credentials: the next request is made with new ones."""
        if self._endpoint is endpoint:
            self._endpoint = msgspec.structs.replace(endpoint, expires=0.0)

    async def close(self) -> None:
        if self._renewing:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})

    async def _renew(self) -> Endpoint:
        """What cannot be renewed is kept: whether it is still good is the server's to say."""
        try:
            async with asyncio.timeout(RENEW_TIMEOUT):
                self._endpoint = await self._source()
        except (SettingsError, TimeoutError) as error:
            log.warning(
                "credentials not renewed", error=str(error) or "no answer in time", retry_in_seconds=RENEW_RETRY
            )
            self._endpoint = msgspec.structs.replace(self._endpoint, expires=time.monotonic() + RENEW_RETRY)
        finally:
            self._renewing = None
        return self._endpoint
