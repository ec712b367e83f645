"""Which replicas there are and what each of them serves: told by every one on its own pod.

A replica is counted before it reads the Secret for the first time, so that what it may serve is never older than what
the Secret said when it was not counted yet.
"""

from __future__ import annotations

import msgspec

from app.kube import paths
from app.kube.client import Client
from app.model.meta import NamespacedName, ObjectMeta
from app.model.pod import PodStatus

SECRET_LABEL = "velda.io/certificate-secret"  # noqa: S105  a label's name
"""On the pod of every replica: whose certificate it serves."""
SERVED_ANNOTATION = "velda.io/served-certificate"
"""On the pod of a replica: the SHA-256 of the certificate that it serves."""


class _Pod(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    status: PodStatus = PodStatus()


class _Pods(msgspec.Struct, frozen=True):
    items: tuple[_Pod, ...] = ()


class Replicas:
    """``pod`` is our own; None outside of a cluster, where there is one replica. All calls raise ApiError."""

    def __init__(self, client: Client, *, pod: NamespacedName | None, secret: str) -> None:
        self._client = client
        self._pod = pod
        self._secret = secret
        self._announced = False
        self._served = ""

    async def announce(self) -> None:
        """Be counted from now on; what an earlier process in this pod served counts no more."""
        if self._pod and not self._announced:
            await self._patch(self._pod, labels={SECRET_LABEL: self._secret}, annotations={SERVED_ANNOTATION: None})
        self._announced = True

    async def confirm(self, served: str) -> bool:
        """Tell the fingerprint of what we serve; False if that is told already."""
        if served == self._served:
            return False
        if self._pod:
            await self._patch(self._pod, annotations={SERVED_ANNOTATION: served})
        self._served = served
        return True

    async def all_serve(self, fingerprint: str) -> bool:
        """Whether every live replica, we included, has told that it serves this certificate."""
        if self._pod is None:
            return self._served == fingerprint
        query = {"labelSelector": f"{SECRET_LABEL}={self._secret}"}
        body = await self._client.get(paths.pods(self._pod.namespace), params=query)
        # One that is being deleted still serves.
        live = [item.metadata for item in msgspec.json.decode(body, type=_Pods).items if not item.status.ended]
        return self._pod.name in {meta.name for meta in live} and all(
            meta.annotation(SERVED_ANNOTATION) == fingerprint for meta in live
        )

    async def _patch(self, pod: NamespacedName, **metadata: dict[str, str | None]) -> None:
        await self._client.merge_patch(paths.pod(pod), {"metadata": metadata})
