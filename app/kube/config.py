"""Which cluster to talk to: the one that velda-config.yaml names, the one we run in, or the current kubectl context."""

from __future__ import annotations

from pathlib import Path

from app.kube import endpoint, gke
from app.kube.client import Client
from app.settings import Kubernetes


async def connect(settings: Kubernetes) -> Client:
    """A client for the cluster; raises SettingsError when there is no way to it."""
    if settings.gke:
        return await _client(gke.source(settings.gke))
    if endpoint.in_cluster():
        return await _client(endpoint.ServiceAccount())
    return await from_kubeconfig()


async def from_kubeconfig(path: Path | None = None) -> Client:
    """A client for the current context of a kubeconfig; without a path, of the one that kubectl takes."""
    return await _client(endpoint.kubectl_context(path))


async def _client(source: endpoint.Source) -> Client:
    return Client(source, await source())
