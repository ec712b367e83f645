"""Keeps the certificates: agrees on the Secret with other replicas, serves it, publishes the CA bundle.

All that is decided is decided on what was read just before; watches only say when to look again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import grpc
import structlog

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import NamespacedName
from app.obs import metrics
from app.settings import Webhook
from certs import publish
from certs.agreement import Agreed, Agreement, CertificateError
from certs.authority import KeyPair
from certs.belonging import Belonging
from certs.grpc_server import server_credentials
from certs.material import expiry, fault, fingerprint
from certs.names import serving_names
from certs.publish import Configuration
from certs.replicas import Replicas
from certs.serving import Serving, load
from certs.store import SecretStore
from certs.verify import refusal
from certs.watch import watch

PAUSE = 0.5
"""Seconds between two looks at least, so that somebody who keeps undoing what we write costs little."""
RETRY_FIRST = 1.0
RETRY_MAX = 60.0
TRIES = 10

log = structlog.get_logger()


class CertificateManager:
    """``context`` is for the HTTPS server, at any time: until the first certificate it serves a throwaway one.

    ``problem`` says why we are not ready: None while a client that trusts what is published takes our certificate.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        settings: Webhook,
        names: Sequence[str] = (),
        pod: str | None,
        leading: Callable[[], bool],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``names`` are served besides those of the webhooks' Service. ``pod`` is our own's name; None outside of a
        cluster, where there is no other replica.
        """
        self._client = client
        self._secret = NamespacedName(namespace, settings.certificate_secret)
        self._config_map = NamespacedName(namespace, settings.ca_config_map)
        self._configurations = _configurations(settings)
        self._external = settings.certificates == "cert-manager"
        own = NamespacedName(namespace, pod) if pod else None
        self._belonging = Belonging(client, namespace=namespace if pod else None)
        self._replicas = Replicas(client, pod=own, secret=settings.certificate_secret)
        self._agreement = Agreement(
            SecretStore(client, self._secret),
            self._replicas,
            names=(*serving_names(settings.service, namespace=namespace, in_cluster=pod is not None), *names),
            overlap=settings.ca_overlap_seconds,
            external=self._external,
            leading=leading,
            clock=clock,
        )
        self._serving = Serving()
        self._agreed: Agreed | None = None
        self._changed = asyncio.Event()
        self.problem: str | None = "certificates are not in place yet"

    @property
    def context(self) -> ssl.SSLContext:
        return self._serving.context

    @property
    def client_context(self) -> ssl.SSLContext:
        """For the port that asks clients for certificates, once ``trust_clients`` was told whose."""
        return self._serving.client_context

    def trust_clients(self, authority: bytes) -> None:
        """Take client certificates of these CAs (DER, one after the other), or none."""
        self._serving.trust_clients(authority)

    def grpc_credentials(
        self, *, require_client_certificate: bool = False, begins: Callable[[], None] = lambda: None
    ) -> grpc.ServerCredentials:
        """For a gRPC server, at any time; with ``require_client_certificate`` it takes those of ``bundle`` alone.

        ``begins`` is told of each handshake, in threads of gRPC's.
        """

        def trusted() -> bytes:
            # Until there is a CA, one that has signed nothing but the throwaway certificate.
            return self.bundle or self._serving.throwaway

        required = trusted if require_client_certificate else None
        return server_credentials(lambda: self._serving.pair, trusted=required, begins=begins)

    @property
    def authority(self) -> KeyPair | None:
        """Our CA, to sign others' certificates with; None while there is none, or the Secret is not ours."""
        return self._agreed.material.authority if self._agreed and self._agreed.ours else None

    @property
    def bundle(self) -> bytes:
        """The CAs (PEM) that clients verify us by, and that sign what ``authority`` signs."""
        return self._agreed.material.bundle if self._agreed else b""

    @property
    def ready(self) -> bool:
        return self.problem is None

    async def run(self) -> None:
        """Look now, at each change and every minute; until all is in place, sooner."""
        async with asyncio.TaskGroup() as tasks:
            for path in (paths.secret(self._secret), *self._configurations):
                tasks.create_task(watch(self._client, path, self._changed.set))
            tasks.create_task(self._keep())

    def look(self) -> None:
        """Look again now: what is to be done depends on who leads, too."""
        self._changed.set()

    async def ensure(self) -> float:
        """Agree on a certificate, serve it and publish its CA; raises ApiError or CertificateError.

        The seconds after which to look again, though nothing changes before.
        """
        if not self._external:
            await self._replicas.announce()
        for _ in range(TRIES):
            if agreed := await self._look():
                return agreed.look_again
        raise ApiError(409, "Conflict", f"Secret {self._secret} or a caBundle was changed {TRIES} times in a row")

    async def _keep(self) -> None:
        retry = RETRY_FIRST
        while True:
            self._changed.clear()
            try:
                delay, retry = await self.ensure(), RETRY_FIRST
            except (ApiError, CertificateError) as error:
                self._failed(error, retry_in=retry)
                delay, retry = retry, min(RETRY_MAX, retry * 2)
            await asyncio.sleep(PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._changed.wait()

    def _failed(self, error: Exception, *, retry_in: float) -> None:
        """An API server that gives no answer makes no certificate worse; time does."""
        metrics.CERTIFICATE_FAILURES.inc()
        aged = fault(self._serving.pair, now=self._agreement.now())
        if isinstance(error, CertificateError) or aged or not self.ready:
            self.problem = f"certificates: {error}"
        log.warning("certificates cannot be ensured", error=str(error), retry_in_seconds=retry_in)

    async def _look(self) -> Agreed | None:
        """One look, and what it shows to be done; None when something was written, and all is to be read anew."""
        # The Secret comes after them: see certs/publish.py.
        configurations = [await publish.read(self._client, path) for path in self._configurations]
        if await self._belonging.ensure(configurations):
            return None
        agreed = await self._agreement.look(configurations)
        if agreed is None:
            return None
        self._agreed = agreed
        _measure(agreed)
        self._serve(agreed, configurations)
        if await self._publish(agreed.material.bundle, configurations):
            return None
        if agreed.ours and await self._replicas.confirm(fingerprint(self._serving.pair.certificate)):
            return None
        if refused := _refusals(self._serving.context, configurations):
            raise CertificateError("; ".join(refused))
        self.problem = None
        await self._tell_clients(agreed.material.bundle)
        return agreed

    def _serve(self, agreed: Agreed, configurations: Sequence[Configuration]) -> None:
        """One that fewer webhooks' callers would take than take what we serve waits until its CA is published."""
        pair = agreed.material.leaf
        if pair == self._serving.pair:
            return
        try:
            if len(_refusals(load(pair), configurations)) <= len(_refusals(self._serving.context, configurations)):
                self._serving.swap(pair)
        except ssl.SSLError as error:
            raise CertificateError(f"Secret {self._secret}: tls.crt, tls.key: {error}") from error

    async def _publish(self, bundle: bytes, configurations: Sequence[Configuration]) -> bool:
        """Whether something was to be written: then all is read back."""
        if self._external:
            return False
        if configurations and not bundle:
            raise CertificateError(f"Secret {self._secret} has no ca.crt to publish as caBundle")
        wrong = [found for found in configurations if any(hook.bundle != bundle for hook in found.hooks)]
        for configuration in wrong:
            if await publish.publish(self._client, configuration, bundle=bundle):
                log.info("caBundle published", configuration=configuration.name)
        return bool(wrong)

    async def _tell_clients(self, bundle: bytes) -> None:
        """Webhooks are served whether or not it is published to clients."""
        try:
            if bundle and await publish.publish_authority(self._client, key=self._config_map, bundle=bundle):
                log.info("CA published to clients", config_map=str(self._config_map))
        except ApiError as error:
            log.warning("CA not published to clients", config_map=str(self._config_map), error=str(error))


def _configurations(settings: Webhook) -> list[str]:
    """The paths of those that there are."""
    both = (
        (paths.validating_webhook, settings.validating_configuration),
        (paths.mutating_webhook, settings.mutating_configuration),
    )
    return [path(name) for path, name in both if name]


def _refusals(server: ssl.SSLContext, configurations: Sequence[Configuration]) -> list[str]:
    """Why the API server would not take the certificate of ``server``, once for each that it calls in its own way."""
    hooks = {hook: configuration.name for configuration in configurations for hook in configuration.hooks}
    return [
        f"{name}: a client that calls {hook.host} and trusts its caBundle: {why}"
        for hook, name in hooks.items()
        if (why := refusal(server, host=hook.host, bundle=hook.bundle))
    ]


def _measure(agreed: Agreed) -> None:
    metrics.CERTIFICATE_PHASE.set(agreed.phase)
    certificates = {"leaf": agreed.material.leaf.certificate, "ca": agreed.material.authority.certificate}
    for kind, certificate in certificates.items():
        if certificate:
            metrics.CERTIFICATE_EXPIRY.labels(kind).set(expiry(certificate).timestamp())
