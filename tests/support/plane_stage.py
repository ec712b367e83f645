"""The bare control plane with kwok nodes: what tests of single parts need."""

from __future__ import annotations

from tests.support import kwok
from tests.support.network import take_range
from tests.support.plane import Network, Plane
from tests.support.process import Children
from tests.support.running import Context, Running


async def start(context: Context) -> Running:
    """On the machine's own loopback, so that tests may serve webhooks to it by URL."""
    directory = context.directory
    children = Children(directory / "logs")
    context.stack.push_async_callback(children.stop)
    loopback = context.stack.enter_context(take_range())
    network = Network(address="127.0.0.1", service_cidr=loopback.service_cidr, first_service=loopback.first_service)
    plane = Plane(directory, network, children)
    await plane.start()
    await kwok.start(children, directory, kubeconfig=plane.kubeconfig, cidr=loopback.pod_cidr)
    description = {"kubeconfig": str(plane.kubeconfig), "directory": str(directory)}
    return Running(description=description, watch=children.watch)
