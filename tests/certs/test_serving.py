"""The certificate changes under a running HTTPS server; handshakes are real ones."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import uvicorn

from certs.authority import KeyPair
from certs.material import Material
from certs.rotation import issue
from certs.serving import Serving

NAME = "velda-apiserver-webhook.velda.svc"


def _issue() -> Material:
    return issue(None, "everything", names=[NAME, "127.0.0.1"], now=datetime.now(UTC))


@contextlib.asynccontextmanager
async def _server(serving: Serving) -> AsyncIterator[int]:
    async def hello(scope: object, receive: object, send: object) -> None:
        raise AssertionError("only handshakes here")

    config = uvicorn.Config(
        hello,
        host="127.0.0.1",
        port=0,
        lifespan="off",
        log_config=None,
        ssl_context_factory=lambda config, default: serving.context,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


async def _connect(port: int, material: Material, *, name: str = NAME) -> asyncio.StreamWriter:
    context = ssl.create_default_context(cadata=material.bundle.decode())
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    return writer


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def test_a_throwaway_certificate_until_the_first_swap() -> None:
    material, serving = _issue(), Serving()
    async with _server(serving) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await _connect(port, material)
        serving.swap(material.leaf)
        await _close(await _connect(port, material))


async def test_swap_reaches_new_connections_and_leaves_standing_ones() -> None:
    first, second, serving = _issue(), _issue(), Serving()
    serving.swap(first.leaf)
    async with _server(serving) as port:
        standing = await _connect(port, first)
        serving.swap(second.leaf)
        await _close(await _connect(port, second))
        with pytest.raises(ssl.SSLCertVerificationError):
            await _connect(port, first)
        assert not standing.transport.is_closing()
        await _close(standing)


async def test_a_client_that_names_no_server_gets_the_same_certificate() -> None:
    material, serving = _issue(), Serving()
    serving.swap(material.leaf)
    async with _server(serving) as port:
        await _close(await _connect(port, material, name="127.0.0.1"))


async def test_a_mismatched_pair_changes_nothing() -> None:
    material, serving = _issue(), Serving()
    serving.swap(material.leaf)
    with pytest.raises(ssl.SSLError):
        serving.swap(KeyPair(material.leaf.certificate, _issue().leaf.key))
    async with _server(serving) as port:
        await _close(await _connect(port, material))
