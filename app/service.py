"""The composition root: every part of the server in one event loop, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from app import __version__
from app.api.app import create as create_http_app
from app.broker.registry import Registry
from app.broker.server import BrokerServer
from app.controller.cache import PoolCache
from app.controller.config_maps import ConfigMaps
from app.controller.pools import PoolController
from app.controller.watches import Watches
from app.core import trace
from app.kube.client import Client
from app.kube.config import connect
from app.kube.events import EventRecorder
from app.kube.leader import LeaderElector
from app.kube.role import LeaderLabel
from app.model.meta import NamespacedName
from app.model.pod import Pod
from app.obs import metrics
from app.obs.trace import TraceWriter
from app.settings import Identity, Settings, SettingsError, Trace
from app.webhook.routes import Admission
from app.webhook.routes import router as webhook_router
from certs.manager import CertificateManager

BROKER_GRACE = 5.0
"""Seconds that agents have to take the end of their streams when leadership or the process ends."""
HTTP_GRACE = 10
"""Seconds that admission requests under way have to end when the process is told to stop."""

log = structlog.get_logger()


async def serve(settings: Settings, identity: Identity) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with await connect(settings.kubernetes) as client:
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
        self._controller: PoolController | None = None
        self._watches = Watches(
            client, self._cache, namespaces=settings.kubernetes.watched, on_quota=self._quota_changed
        )
        self._events = EventRecorder(client, instance=self._name)
        self._config_maps = ConfigMaps(
            client, self._cache, name=settings.agents.config_map, content=_velda_yaml(settings)
        )
        self._certificates = CertificateManager(
            client, namespace=self._namespace, settings=settings.webhook, in_cluster=identity.pod_name is not None
        )
        self._elector = LeaderElector(
            client, namespace=self._namespace, identity=self._name, settings=settings.leader_election
        )
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Start in order — caches and certificates, HTTPS, then leadership — and stop in the opposite one."""
        log.info("starting", version=__version__, namespaces=list(self._settings.kubernetes.watched) or "all")
        async with _background(self._watches.run(), self._events.run(), self._certificates.run()), self._https():
            await self._watches.wait_synced()
            async with _background(self._elector.run(self._lead)):
                log.info("running", https=self._settings.server.port, grpc=self._settings.broker.port)
                await stop.wait()
                log.info("stopping")
                self._stopping = True

    def not_ready(self) -> str | None:
        """Why this replica must not be sent requests; None when it may be."""
        if self._stopping:
            return "stopping"
        if self._certificates.problem:
            return self._certificates.problem
        if not self._watches.synced:
            return "the caches are not filled yet"
        return None

    def _agents_changed(self, pool: NamespacedName) -> None:
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
        log.info("leading", identity=self._name)
        metrics.LEADING.set(1)
        loop = asyncio.get_running_loop()
        registry = Registry(self._cache, clock=loop.time, on_change=self._agents_changed, record=record)
        controller = PoolController(
            client=self._client,
            cache=self._cache,
            agents=registry,
            events=self._events,
            config_maps=self._config_maps,
            record=record,
        )
        broker = BrokerServer(registry, self._cache, settings=self._settings)
        label = LeaderLabel(self._client, namespace=self._namespace, pod=self._identity.pod_name)

        def pod_changed(key: NamespacedName, old: Pod | None, new: Pod | None) -> None:
            if pod := new or old:
                broker.pod_changed(key, pod.metadata.name)

        self._controller = controller
        try:
            await broker.start()
            await label.take()
            with self._cache.listening(pod=pod_changed):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(controller.run())
                    tasks.create_task(self._config_maps.run())
        finally:
            self._controller = None
            metrics.LEADING.set(0)
            await broker.stop(BROKER_GRACE)
            await label.drop()
            log.info("no longer leading", identity=self._name)

    @contextlib.asynccontextmanager
    async def _https(self) -> AsyncIterator[None]:
        admission = Admission(self._client, agents=self._settings.agents, webhook=self._settings.webhook)
        config = uvicorn.Config(
            create_http_app(webhook_router=webhook_router(admission), ready=self.not_ready, client=self._client),
            host=self._settings.server.host,
            port=self._settings.server.port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=HTTP_GRACE,
        )
        config.load()
        config.ssl = self._certificates.context
        server = _Server(config)
        port = socket.create_server((self._settings.server.host, self._settings.server.port), backlog=2048)
        serving = asyncio.create_task(server.serve(sockets=[port]), name="https")
        try:
            await server.listening.wait()
            yield
        finally:
            server.should_exit = True
            await serving


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
