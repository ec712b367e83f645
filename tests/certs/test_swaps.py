"""CAs and certificates change under load, over HTTPS and gRPC: no handshake and no call fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs.agents import issue_agent
from certs.authority import KeyPair
from certs.grpc_server import server_credentials
from certs.material import Material
from certs.rotation import View, issue, next_step
from certs.serving import Serving

NAME = "velda-apiserver.velda.svc"
ROTATIONS = 20
CLIENTS = 8


class World:
    """What is published and what is served, brought from phase to phase as the manager would."""

    def __init__(self) -> None:
        self.serving = Serving()
        self.material = issue(None, "everything", names=[NAME], now=datetime.now(UTC))
        self.published = self.material.bundle
        self.serving.swap(self.material.leaf)

    def step(self, view: View) -> None:
        step = next_step(self.material, view, names=[NAME], overlap=0, now=datetime.now(UTC))
        assert step
        self.material = step.material
        self.published = self.material.bundle
        self.serving.swap(self.material.leaf)


async def under_load(
    world: World, call: Callable[[Material, bytes], Awaitable[None]], *, rotations: int = ROTATIONS
) -> int:
    """Rotate while clients ``call``, each with what is published when it begins; how many calls were made."""
    over, calls = asyncio.Event(), 0

    async def client() -> None:
        nonlocal calls
        while not over.is_set():
            await call(world.material, world.published)
            calls += 1

    async def progress(since: int) -> None:
        """Every client has made a call that began after now."""
        while calls < since + 2 * CLIENTS:  # noqa: ASYNC110  it is the event loop that clients need
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(client())
        for _ in range(rotations):
            for view in (
                View(leading=True, requested="ca"),
                View(leading=True, published_for=0),
                View(leading=True, confirmed=True),
                View(leading=True, requested="leaf"),
            ):
                world.step(view)
                await progress(calls)
        over.set()
    return calls


async def test_https() -> None:
    world = World()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(1))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=world.serving.context)
    port = server.sockets[0].getsockname()[1]

    async def call(_material: Material, bundle: bytes) -> None:
        trust = ssl.create_default_context(cadata=bundle.decode())
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=NAME)
        writer.write(b"a")
        assert await reader.read() == b"a"
        writer.close()
        await writer.wait_closed()

    async with server:
        assert await under_load(world, call) >= ROTATIONS * CLIENTS


async def _echo(request: bytes, _context: object) -> bytes:
    return request


@asynccontextmanager
async def grpc_server(credentials: grpc.ServerCredentials) -> AsyncIterator[str]:
    server = grpc.aio.server()
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"echo": method}),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


OPTIONS = (("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1))


async def _say(address: str, credentials: grpc.ChannelCredentials) -> None:
    """On a connection of its own."""
    async with grpc.aio.secure_channel(address, credentials, options=OPTIONS) as channel:
        assert await _method(channel)(b"a", timeout=20) == b"a"


def _method(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary("/test/echo")


async def test_grpc() -> None:
    world = World()
    async with grpc_server(server_credentials(lambda: world.serving.pair)) as address:
        first = grpc.ssl_channel_credentials(world.published)
        async with grpc.aio.secure_channel(address, first, options=OPTIONS) as standing:
            await _method(standing)(b"a")

            async def call(_material: Material, bundle: bytes) -> None:
                await _say(address, grpc.ssl_channel_credentials(bundle))

            rotations = 5  # handshakes stand still for half a second at each change
            assert await under_load(world, call, rotations=rotations) >= rotations * CLIENTS
            assert standing.get_state() is grpc.ChannelConnectivity.READY
            assert await _method(standing)(b"b") == b"b"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _say(address, first)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def _agent(material: Material) -> KeyPair:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = request.public_bytes(Encoding.PEM)
    certificate = issue_agent(material.authority, request=pem, uri="velda://a/b/c", now=datetime.now(UTC))
    return KeyPair(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


async def test_grpc_takes_clients_of_what_is_trusted_then_and_no_others() -> None:
    world = World()
    agent, stranger = _agent(world.material), _agent(World().material)
    credentials = server_credentials(lambda: world.serving.pair, trusted=lambda: world.published)
    async with grpc_server(credentials) as address:

        async def say(pair: KeyPair) -> None:
            await _say(address, grpc.ssl_channel_credentials(world.published, pair.key, pair.certificate))

        await say(agent)
        world.step(View(leading=True, requested="ca"))
        await say(agent)
        with pytest.raises(grpc.aio.AioRpcError):
            await say(stranger)
        with pytest.raises(grpc.aio.AioRpcError):
            await _say(address, grpc.ssl_channel_credentials(world.published))
