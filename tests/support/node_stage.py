"""The node stage: a whole one-node Kubernetes with real containers, and kwok nodes beside it for the larger pools."""

from __future__ import annotations

import asyncio
import sys

from tests.support import kwok, node
from tests.support.api import Api
from tests.support.doors import Doors
from tests.support.plane import Network, Plane
from tests.support.process import Children
from tests.support.running import CHECKOUT, Context, Running
from tests.support.workers import POOL_LABEL


async def start(context: Context) -> Running:
    """As root, in namespaces of its own; pods on node-0 are containers, those on kwok nodes get agents of ours."""
    directory = context.directory
    await node.prepare_mounts(directory.name)
    await node.prepare_network()
    children = Children(directory / "logs")
    context.stack.push_async_callback(children.stop)
    network = Network(
        address=node.ADDRESS,
        service_cidr=node.SERVICE_CIDR,
        first_service=node.API_SERVICE,
        reconcile_endpoints=True,
    )
    plane = Plane(directory, network, children)
    await plane.start()
    kubeconfig = await context.open_door(plane)
    await node.Node(directory, plane, children, registry=context.images).start()
    await kwok.start(children, directory, kubeconfig=plane.kubeconfig, cidr=node.KWOK_POD_CIDR, own_deletion=POOL_LABEL)
    (sockets := directory / "services").mkdir()
    (agents := directory / "agents").mkdir()
    arguments = ("-m", "tests.support.workers", plane.kubeconfig, agents, node.NAME)
    await children.start("workers", sys.executable, *arguments, cwd=CHECKOUT)
    api = await context.stack.enter_async_context(Api(plane.kubeconfig))

    async def watch() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(Doors(api, sockets).run())
            group.create_task(children.watch())

    return Running(description={"kubeconfig": str(kubeconfig), "directory": str(directory)}, watch=watch)
