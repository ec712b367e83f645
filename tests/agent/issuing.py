"""Where certificates are issued to agents, over HTTPS, and a pod that asks for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from app.agent.certificate import run
from app.api.agents import router
from app.broker.proofs import AgentCertificates, Review
from certs.authority import KeyPair, issue_authority, issue_leaf
from certs.serving import Serving

NOW = datetime.now(UTC)
AUTHORITY = issue_authority(now=NOW)


class Pod:
    """What its init container is given, and where it writes to."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.token, self.home = directory / "ca.crt", directory / "token", directory / "out"
        self.ca.write_bytes(AUTHORITY.certificate)
        self.token.write_text("good\n")
        self.home.mkdir()

    async def ask(self, url: str, *, timeout: float = 0) -> int:
        arguments = {"ca": self.ca, "token": self.token, "directory": self.home}
        return await asyncio.to_thread(run, url=url, timeout=timeout, **arguments)


async def review(token: str) -> Mapping[str, Any] | None:
    about = {"pod-name": ["cpu-1"], "pod-uid": ["u-1"]}
    extra = {f"authentication.kubernetes.io/{key}": value for key, value in about.items()}
    return {"username": "system:serviceaccount:team:default", "extra": extra} if token == "good" else None


@asynccontextmanager
async def serving(
    ask: Review = review, *, authority: KeyPair | None = AUTHORITY, vouched_by: KeyPair = AUTHORITY
) -> AsyncIterator[str]:
    """Where certificates are issued."""
    application, tls = FastAPI(), Serving()
    application.include_router(router(AgentCertificates(ask, lambda: authority)))
    tls.swap(issue_leaf(vouched_by, names=["127.0.0.1"], now=NOW))
    config = uvicorn.Config(application, host="127.0.0.1", port=0, lifespan="off", log_config=None)
    config.load()
    config.ssl = tls.context
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"https://127.0.0.1:{port}/agents/v1/certificate"
    finally:
        await server.shutdown()
