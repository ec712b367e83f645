"""What all replicas serve: the Secret's content, once nothing is to be written into it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from certs.material import Material, fault, fingerprint
from certs.publish import Configuration
from certs.replicas import Replicas
from certs.rotation import REQUESTS, Phase, Request, Step, View, next_step, phase
from certs.store import ROTATE_ANNOTATION, SecretStore, StoredSecret

CHECK_INTERVAL = 60.0
"""Seconds between looks at what no watch tells: a certificate's age, and whatever a watch has missed."""
CHANGE_INTERVAL = 2.0
"""Seconds between looks while a CA is replaced: at the time, at what other replicas serve, and at who leads."""
CLOCK_TOLERANCE = timedelta(minutes=1)
"""By how much our clock may differ from the API server's before we go by that."""

log = structlog.get_logger()


class CertificateError(Exception):
    """The certificate is of no use as things are; the text says why, in a sentence for the operator."""


@dataclass(frozen=True)
class Agreed:
    """``ours``: we issued it. ``look_again``: seconds after which it may be time to write, though nothing changed."""

    material: Material
    phase: Phase
    ours: bool
    look_again: float


class Agreement:
    """``external``: somebody else fills the Secret, also while it is empty."""

    def __init__(
        self,
        store: SecretStore,
        replicas: Replicas,
        *,
        names: Sequence[str],
        overlap: float,
        external: bool,
        leading: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._replicas = replicas
        self._names = names
        self._overlap = overlap
        self._external = external
        self._leading = leading
        self._clock = clock
        self._skew = timedelta()
        self._published: tuple[bytes, float] | None = None

    def now(self) -> datetime:
        """By the API server's clock, where it is known to differ from ours."""
        return self._clock() + self._skew

    async def look(self, configurations: Sequence[Configuration]) -> Agreed | None:
        """None when the Secret was written, or another was faster: all is to be read anew.

        ``configurations`` must have been read before (see certs/publish.py). Raises ApiError and CertificateError.
        """
        stored = await self._store.read()
        if self._external or stored.users:
            return self._users(stored)
        view = await self._view(stored, configurations)
        material = None if stored.empty else stored.material
        step = next_step(material, view, names=self._names, overlap=self._overlap, now=self.now())
        if step:
            await self._write(stored, step)
            return None
        current = phase(stored.material)
        look_again = CHECK_INTERVAL if current is Phase.STEADY else CHANGE_INTERVAL
        return Agreed(stored.material, current, ours=True, look_again=look_again)

    def _users(self, stored: StoredSecret) -> Agreed:
        if stored.empty:
            raise CertificateError(f"Secret {self._store.key} has no certificate yet: cert-manager has to fill it")
        if problem := fault(stored.material.leaf, now=self.now()):
            raise CertificateError(
                f"Secret {self._store.key} is not ours to mend and cannot be used: tls.crt, tls.key: {problem}"
            )
        return Agreed(stored.material, Phase.STEADY, ours=False, look_again=CHECK_INTERVAL)

    async def _view(self, stored: StoredSecret, configurations: Sequence[Configuration]) -> View:
        leading, material = self._leading(), stored.material
        waits = leading and not stored.empty and phase(material) is Phase.SWITCHING
        requested: Request = next((known for known in REQUESTS if known == stored.requested), "")
        if stored.requested and not requested:
            log.warning(
                "unknown request", secret=str(self._store.key), annotation=ROTATE_ANNOTATION, value=stored.requested
            )
        published = [hook.bundle for configuration in configurations for hook in configuration.hooks]
        return View(
            published=published,
            published_for=self._published_for(material.bundle, published),
            confirmed=waits and await self._replicas.all_serve(fingerprint(material.leaf.certificate)),
            leading=leading,
            requested=requested,
        )

    def _published_for(self, bundle: bytes, published: Sequence[bytes]) -> float | None:
        """Seconds, as far as we have seen ourselves; by a clock that never jumps."""
        now = asyncio.get_running_loop().time()
        if any(shown != bundle for shown in published):
            self._published = None
            return None
        if self._published is None or self._published[0] != bundle:
            self._published = (bundle, now)
        return now - self._published[1]

    async def _write(self, stored: StoredSecret, step: Step) -> None:
        when = await self._store.write(stored, step.material, done=step.done)
        if when is None:
            return
        level = log.warning if step.fault else log.info
        level("certificates issued", secret=str(self._store.key), reason=step.reason)
        skew = when - self._clock()
        if abs(skew - self._skew) > CLOCK_TOLERANCE:
            self._skew = skew if abs(skew) > CLOCK_TOLERANCE else timedelta()
            log.warning("our clock is not the API server's", behind_by_seconds=round(skew.total_seconds()))
