"""The composition root: every part of the server in one event loop, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import structlog
import uvicorn
from fastapi import APIRouter, FastAPI

from app import __version__
from app.api.agents import router as agent_router
from app.api.app import create as create_http_app
from app.api.auth import Protocol
from app.api.limits import bounded
from app.broker.access import Access, Open
from app.broker.clients import Clients
from app.broker.handshakes import handshakes
from app.broker.proofs import AgentCertificates
from app.broker.rbac import Rbac
from app.broker.registry import Registry
from app.broker.server import BrokerServer
from app.controller.cache import PoolCache
from app.controller.config_maps import ConfigMaps
from app.controller.pools import PoolController
from app.controller.watches import Watches
from app.core import trace
from app.dashboard.board import Board
from app.dashboard.routes import routes as dashboard_routes
from app.kube.access import review_token
from app.kube.client import Client
from app.kube.config import connect
from app.kube.events import EventRecorder
from app.kube.leader import LeaderElector
from app.kube.role import LeaderLabel
from app.model.meta import NamespacedName
from app.model.pod import Pod
from app.obs import metrics, spans
from app.obs.levels import follow
from app.obs.trace import TraceWriter
from app.settings import Identity, Limits, Settings, SettingsError, Trace
from app.supervisor import Supervisor
from app.webhook.routes import Admission
from app.webhook.routes import router as webhook_router
from certs.clients import ClientAuthority
from certs.manager import CertificateManager

BROKER_GRACE = 5.0
"""Seconds that agents have to take the end of their streams when leadership or the process ends."""
HTTP_GRACE = 10
"""Seconds that admission requests under way have to end when the process is told to stop."""
KEEP_ALIVE = 120
"""Seconds after which a connection that is not used is closed. An API server does so itself after 90; were we first, a
review that it sends at that moment would fail, and it is not sent again.
"""

log = structlog.get_logger()


async def serve(settings: Settings, identity: Identity, *, config: Path) -> None:
    """Run until SIGTERM or SIGINT; ``config`` is the file that the settings are from."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with await connect(settings.kubernetes) as client, _background(follow(config, settings)):
        await Service(client, settings, identity).run(stop)
    log.info("stopped")


class Service:
    """One replica of velda-apiserver."""

    def __init__(self, client: Client, settings: Settings, identity: Identity) -> None:
        self._client = client
        self._settings = settings
        self._identity = identity
        self._namespace = identity.namespace or (settings.kubernetes.watched or ("default",))[0]
        self._name = identity.pod_name or f"{socket.gethostname()}-{os.getpid()}"
        self._cache = PoolCache()
        self._board = Board(self._cache)
        self._controller: PoolController | None = None
        self._clients: Clients | None = None
        self._watches = Watches(
            client, self._cache, namespaces=settings.kubernetes.watched, on_quota=self._quota_changed
        )
        self._events = EventRecorder(client, instance=self._name)
        self._config_maps = ConfigMaps(
            client,
            self._cache,
            name=settings.agents.config_map,
            content=_velda_yaml(settings),
            bundle=lambda: self._certificates.bundle if settings.broker_tls else b"",
        )
        self._certificates = CertificateManager(
            client,
            namespace=self._namespace,
            settings=settings.webhook,
            names=settings.broker.names,
            pod=identity.pod_name,
            leading=lambda: self._elector.leading,
        )
        self._client_authority = ClientAuthority(client, self._certificates.trust_clients)
        self._rbac = Rbac(client, settings.clients)
        self._elector = LeaderElector(
            client,
            namespace=self._namespace,
            identity=self._name,
            settings=settings.leader_election,
            owner=settings.webhook.certificate_secret if identity.pod_name else None,
        )
        self._supervisor = Supervisor()
        self._stopping = False
        metrics.READY.set_function(lambda: self.not_ready() is None)

    async def run(self, stop: asyncio.Event) -> None:
        """Start in order — caches and certificates, HTTPS, then leadership — and stop in the opposite one."""
        log.info("starting", version=__version__, namespaces=list(self._settings.kubernetes.watched) or "all")
        kept = [
            self._watches.run(),
            self._events.run(),
            self._certificates.run(),
            self._supervisor.beat(self._status),
        ]
        if self._settings.clients.authentication == "kubernetes":
            kept.append(self._client_authority.run())
        tracing = spans.exporting(self._settings.tracing, instance=self._name)
        async with tracing, _background(*kept), self._https():
            await self._watches.wait_synced()
            _settle_heap()
            async with _background(self._elector.run(self._lead)):
                server = self._settings.server
                log.info("running", https=server.port, clients=server.client_port, grpc=self._settings.broker.port)
                self._supervisor.ready(self._status())
                await stop.wait()
                drained = asyncio.get_running_loop().time() + server.drain_seconds
                log.info("stopping", drain_seconds=server.drain_seconds)
                self._stopping = True
                self._supervisor.stopping(self._status())
            # The lease is another's by now, while webhooks are answered for those who do not know yet that we go.
            await asyncio.sleep(max(0.0, drained - asyncio.get_running_loop().time()))

    def not_ready(self) -> str | None:
        """Why this replica must not be sent requests; None when it may be."""
        if self._stopping:
            return "stopping"
        if self._certificates.problem:
            return self._certificates.problem
        if not self._watches.synced:
            return "the caches are not filled yet"
        return None

    def _status(self) -> str:
        """A line for those who look after the process."""
        if problem := self.not_ready():
            return problem
        if self._clients:
            return "leading"
        return "taking the lead" if self._elector.leading else "standing by: another replica leads"

    def _broker_tls(self) -> grpc.ServerCredentials | None:
        if not self._settings.broker_tls:
            return None
        if self._settings.agents.authentication != "mtls":
            return self._certificates.grpc_credentials()
        return self._certificates.grpc_credentials(require_client_certificate=True, begins=handshakes.begins)

    def _agent_router(self) -> APIRouter | None:
        if self._settings.agents.authentication != "mtls":
            return None
        return agent_router(AgentCertificates(self._review_agent, lambda: self._certificates.authority))

    async def _review_agent(self, token: str) -> Mapping[str, Any] | None:
        return await review_token(self._client, token, [self._settings.agents.token_audience])

    def _agents_changed(self, pool: NamespacedName) -> None:
        self._board.touched(pool)
        if self._controller:
            self._controller.wake(pool)

    def _quota_changed(self, namespace: str) -> None:
        if self._controller:
            self._controller.quota_changed(namespace)

    async def _lead(self) -> None:
        """One term of leadership: the broker, the label that its Service selects, and the controller."""
        async with _tracing(self._settings.trace) as record:
            await self._serve_term(record)

    async def _serve_term(self, record: trace.Recorder) -> None:
        log.info("taking the lead", identity=self._name)
        await self._watches.refresh()  # what the last leader did must not be done again because our watch lags
        metrics.LEADING.set(1)
        self._certificates.look()
        loop = asyncio.get_running_loop()
        registry = Registry(
            self._cache,
            clock=loop.time,
            on_change=self._agents_changed,
            record=record,
            leading=self._elector.holds,
        )
        controller = PoolController(
            client=self._client.fenced(self._elector.holds),
            cache=self._cache,
            agents=registry,
            events=self._events,
            config_maps=self._config_maps,
            proof=self._settings.agents.proof,
            record=record,
        )
        broker = BrokerServer(
            registry,
            self._cache,
            access=self._access,
            settings=self._settings,
            review=self._review_agent,
            tls=self._broker_tls(),
            bundle=lambda: self._certificates.bundle,
        )
        label = LeaderLabel(self._client, namespace=self._namespace, pod=self._identity.pod_name)

        def pod_changed(key: NamespacedName, old: Pod | None, new: Pod | None) -> None:
            if pod := new or old:
                broker.pod_changed(key, pod.metadata.name)

        self._controller = controller
        try:
            await broker.start()
            await label.take()
            self._clients = broker.clients
            log.info("leading", identity=self._name)
            with self._cache.listening(pod=pod_changed):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(controller.run())
                    tasks.create_task(self._config_maps.run())
        finally:
            self._controller = self._clients = None
            metrics.LEADING.set(0)
            await broker.stop(BROKER_GRACE)
            await label.drop()
            log.info("no longer leading", identity=self._name)

    @contextlib.asynccontextmanager
    async def _https(self) -> AsyncIterator[None]:
        admission = Admission(self._client, agents=self._settings.agents, webhook=self._settings.webhook)
        app = create_http_app(
            webhook_router=webhook_router(admission),
            ready=self.not_ready,
            rbac=self._rbac if self._settings.server.metrics == "authenticated" else None,
            leading=lambda: self._clients,
            limits=self._settings.limits,
            agent_router=self._agent_router(),
            dashboard=dashboard_routes(self._board, lambda: self._clients),
        )
        ports = (
            (self._settings.server.port, self._certificates.context),
            (self._settings.server.client_port, self._certificates.client_context),
        )
        host, limits = self._settings.server.host, self._settings.limits
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._board.listening())
            for port, context in ports:
                await stack.enter_async_context(_serving(app, host, port, context, limits))
            yield

    @property
    def _access(self) -> Access:
        return self._rbac if self._settings.clients.authentication == "kubernetes" else Open()


def _settle_heap() -> None:
    """Leave what the start has made out of every later collection: each would stop all for 60 ms or more to find that
    it is still in use.
    """
    gc.collect()
    gc.freeze()


@contextlib.asynccontextmanager
async def _serving(app: FastAPI, host: str, port: int, context: ssl.SSLContext, limits: Limits) -> AsyncIterator[None]:
    """The application over HTTPS, from when it listens until the block ends."""
    config = uvicorn.Config(
        app,
        http=bounded(Protocol, limits),
        h11_max_incomplete_event_size=limits.header_bytes,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=HTTP_GRACE,
    )
    config.load()
    config.ssl = context
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[_listen(host, port)]), name=f"https on {port}")
    try:
        await server.listening.wait()
        yield
    finally:
        server.should_exit = True
        await serving


def _listen(host: str, port: int) -> socket.socket:
    """Its connections send at once: asyncio sees to that only for sockets that name their protocol, and the end of an
    answer would wait 40 ms for the peer's delayed acknowledgement of its beginning.
    """
    listening = socket.create_server((host, port), backlog=2048)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals alone: the order of stopping is the service's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _tracing(settings: Trace) -> AsyncIterator[trace.Recorder]:
    """Where a term's traces go; what is still unwritten at its end is written then."""
    if settings.directory is None:
        yield trace.nobody
        return
    writer = TraceWriter(Path(settings.directory), max_bytes=settings.max_bytes)
    writer.start()
    try:
        yield writer.write
    finally:
        await asyncio.to_thread(writer.close)


@contextlib.asynccontextmanager
async def _background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run beside the block; one that fails ends the block with its error; all are cancelled when the block ends."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(coroutine) for coroutine in work]
        yield
        for task in started:
            task.cancel()


def _velda_yaml(settings: Settings) -> str | None:
    path = settings.agents.velda_yaml
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: agents.velda_yaml cannot be read: {error}") from error
