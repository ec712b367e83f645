"""Keeps the webhooks' certificates: agrees on the Secret with other replicas, serves it, publishes the CA bundle."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import NamespacedName
from app.settings import Webhook
from certs.names import serving_names
from certs.publish import NotPublishedError, publish
from certs.rotation import Material, due, fault, issue
from certs.serving import Serving
from certs.store import SecretStore, StoredSecret

CHECK_INTERVAL = 60.0
"""Seconds between checks for a renewed or lost certificate and for a caBundle that somebody wiped."""
RETRY_FIRST = 1.0
TRIES = 5

log = structlog.get_logger()


class CertificateError(Exception):
    """There is no certificate to serve with; the text says why, in a sentence for the operator."""


class CertificateManager:
    """``context`` is for the HTTPS server, at any time: until the first certificate it serves a throwaway one.

    ``problem`` says why we are not ready; None from the first time on that the certificate is served and published.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        settings: Webhook,
        in_cluster: bool,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._store = SecretStore(client, NamespacedName(namespace, settings.certificate_secret))
        self._configurations = [
            path(name)
            for path, name in (
                (paths.validating_webhook, settings.validating_configuration),
                (paths.mutating_webhook, settings.mutating_configuration),
            )
            if name
        ]
        self._names = serving_names(settings.service, namespace=namespace, in_cluster=in_cluster)
        self._serving = Serving()
        self._clock = clock
        self._served: Material | None = None
        self.problem: str | None = "certificates are not in place yet"

    @property
    def context(self) -> ssl.SSLContext:
        return self._serving.context

    @property
    def ready(self) -> bool:
        return self.problem is None

    async def run(self) -> None:
        """Ensure it now and every minute; until it succeeds, sooner."""
        delay = RETRY_FIRST
        while True:
            try:
                await self.ensure()
                delay = CHECK_INTERVAL
            except (ApiError, CertificateError, NotPublishedError) as error:
                if not self.ready:
                    self.problem = f"certificates: {error}"
                log.warning("certificates cannot be ensured", error=str(error), retry_in_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(CHECK_INTERVAL, delay * 2)

    async def ensure(self) -> None:
        """Load the certificate or issue it, serve it and publish its CA; raises what kept it from that."""
        material = await self._agree()
        self._serve(material)
        for path in self._configurations:
            if not material.bundle:
                raise CertificateError(f"Secret {self._store.key} has no ca.crt to publish as caBundle")
            if await publish(self._client, path=path, bundle=material.bundle):
                log.info("caBundle published", configuration=path.rpartition("/")[2])
        self.problem = None

    async def _agree(self) -> Material:
        """What all replicas serve: the Secret's content, once there is nothing due in it."""
        for _ in range(TRIES):
            stored = await self._store.read()
            if stored.users:
                return self._users(stored)
            if material := await self._renewed(stored):
                return material
        raise CertificateError(f"Secret {self._store.key} was changed by others {TRIES} times in a row")

    async def _renewed(self, stored: StoredSecret) -> Material | None:
        """The content, renewed where due; None if another replica was faster."""
        now = self._clock()
        if stored.empty:
            material = issue(None, "everything", names=self._names, now=now)
            reason, faulty = "there is none yet", False
        else:
            verdict = due(stored.material, names=self._names, now=now)
            if verdict.what == "nothing":
                return stored.material
            material = issue(stored.material, verdict.what, names=self._names, now=now)
            reason, faulty = verdict.reason, verdict.fault
        if not await self._store.write(stored, material):
            return None
        level = log.warning if faulty else log.info
        level("certificates issued", secret=str(self._store.key), reason=reason)
        return material

    def _users(self, stored: StoredSecret) -> Material:
        if problem := fault(stored.material.leaf, now=self._clock()):
            raise CertificateError(
                f"Secret {self._store.key} is not ours to mend and cannot be used: tls.crt, tls.key: {problem}"
            )
        return stored.material

    def _serve(self, material: Material) -> None:
        if self._served and self._served.leaf == material.leaf:
            return
        try:
            self._serving.swap(material.leaf)
        except ssl.SSLError as error:
            raise CertificateError(f"Secret {self._store.key}: tls.crt, tls.key: {error}") from error
        self._served = material
