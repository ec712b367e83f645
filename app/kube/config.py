"""Which cluster to talk to: the one that velda-config.yaml names, the one we run in, or the current kubectl context."""

from __future__ import annotations

from app.kube import endpoint, gke
from app.kube.client import Client
from app.settings import Kubernetes


async def connect(settings: Kubernetes) -> Client:
    """A client for the cluster; raises SettingsError when there is no way to it."""
    if settings.gke:
        source = gke.source(settings.gke)
    elif endpoint.in_cluster():
        source = endpoint.ServiceAccount()
    else:
        source = endpoint.from_kubectl_context
    return Client(source, await source())
