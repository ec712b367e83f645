"""The bare control plane with kwok nodes: what tests of single parts need."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from tests.support import kwok
from tests.support.network import take_range
from tests.support.plane import Network, Plane
from tests.support.process import Children
from tests.support.running import Context, Running


async def raised(directory: Path, stack: AsyncExitStack) -> tuple[Plane, Children]:
    """On the machine's own loopback, so that tests may serve webhooks to it by URL; gone with the stack."""
    children = Children(directory / "logs")
    stack.push_async_callback(children.stop)
    loopback = stack.enter_context(take_range())
    network = Network(address="127.0.0.1", service_cidr=loopback.service_cidr, first_service=loopback.first_service)
    plane = Plane(directory, network, children)
    await plane.start()
    await kwok.start(children, directory, kubeconfig=plane.kubeconfig, cidr=loopback.pod_cidr)
    return plane, children


async def start(context: Context) -> Running:
    plane, children = await raised(context.directory, context.stack)
    description = {"kubeconfig": str(plane.kubeconfig), "directory": str(context.directory)}
    return Running(description=description, watch=children.watch)
