"""The names that the webhooks are called by."""

from __future__ import annotations

from pathlib import Path

RESOLVER = Path("/etc/resolv.conf")
DEFAULT_DOMAIN = "cluster.local"


def serving_names(service: str, *, namespace: str, in_cluster: bool) -> tuple[str, ...]:
    """The Service's, and this machine's own where the API server calls us by URL, outside of the cluster."""
    names = (f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.{cluster_domain()}")
    return names if in_cluster else (*names, "localhost", "127.0.0.1")


def cluster_domain(resolver: Path = RESOLVER) -> str:
    """As kubelet tells it each pod: by a search list ``NAMESPACE.svc.DOMAIN svc.DOMAIN DOMAIN``."""
    try:
        lines = resolver.read_text(errors="replace").splitlines()
    except OSError:
        return DEFAULT_DOMAIN
    searched = [word for line in lines if line.startswith("search") for word in line.split()[1:]]
    return next((word.removeprefix("svc.").rstrip(".") for word in searched if word.startswith("svc.")), DEFAULT_DOMAIN)
