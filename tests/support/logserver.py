"""The part of kubelet's own HTTPS port that ``kubectl logs`` and helm's hooks read: what our server's pods printed."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from aiohttp import web

from tests.support.pki import Pki

_POLL = 0.2


class LogServer:
    """``logs`` holds one file a pod, by its name."""

    def __init__(self, logs: Path, *, pki: Pki) -> None:
        self._logs = logs
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(*pki.issue_server("kubelet", hosts=["127.0.0.1"]))

    async def run(self, port: int) -> None:
        """For ever; ``port`` is what the nodes say that theirs is."""
        application = web.Application()
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._answer)
        runner = web.AppRunner(application, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port, ssl_context=self._context).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = self._logs / f"{request.match_info['pod']}.log"
        if not path.exists():
            raise web.HTTPNotFound(text=f"the stage has no log of {request.match_info['pod']}")
        response = web.StreamResponse()
        response.content_type = "text/plain"
        await response.prepare(request)
        with path.open("rb") as file:
            lines = file.read().splitlines(keepends=True)
            wanted = int(request.query.get("tailLines", len(lines)))
            await response.write(b"".join(lines[len(lines) - min(wanted, len(lines)) :]))
            while request.query.get("follow") == "true":  # until the reader leaves: then this is cancelled
                await asyncio.sleep(_POLL)
                await response.write(file.read())
        return response
