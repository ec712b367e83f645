"""The fleet stage: control plane and kwok nodes; our server's pods are processes, worker pods are agents of ours."""

from __future__ import annotations

import asyncio
import sys

from tests.support import kwok, workers
from tests.support.api import Api
from tests.support.doors import Doors
from tests.support.kubelet import LABEL, VALUE, ProcessKubelet
from tests.support.logserver import LogServer
from tests.support.netns import loopback_up
from tests.support.plane import Network, Plane
from tests.support.process import Children, free_port
from tests.support.proxy import ServiceProxy
from tests.support.running import CHECKOUT, Context, Running

_POD_CIDR = "127.80.0.1/16"
_SERVICE_CIDR = "127.96.0.0/16"
_API_SERVICE = "127.96.0.1"


async def start(context: Context) -> Running:
    """In namespaces of its own, where all of 127.0.0.0/8 is free."""
    loopback_up()
    directory = context.directory
    children = Children(directory / "logs")
    context.stack.push_async_callback(children.stop)
    plane = Plane(
        directory, Network(address="127.0.0.1", service_cidr=_SERVICE_CIDR, first_service=_API_SERVICE), children
    )
    await plane.start()
    kubeconfig = await context.open_door(plane)
    await kwok.start(
        children,
        directory,
        kubeconfig=plane.kubeconfig,
        cidr=_POD_CIDR,
        unmanaged={LABEL: VALUE},
        own_deletion=workers.POOL_LABEL,
        node_port=(node_port := free_port()),
    )
    (directory / "agents").mkdir()
    await children.start(
        "workers", sys.executable, "-m", "tests.support.workers", plane.kubeconfig, directory / "agents", cwd=CHECKOUT
    )
    api = await context.stack.enter_async_context(Api(plane.kubeconfig))
    (sockets := directory / "services").mkdir()
    (pod_logs := directory / "logs" / "pods").mkdir()
    proxy = ServiceProxy(api, api_server=("127.0.0.1", plane.port))
    kubelet = ProcessKubelet(api, proxy, api_service=_API_SERVICE, directory=directory / "pods", logs=pod_logs)

    async def watch() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(proxy.run())
            group.create_task(kubelet.run())
            group.create_task(LogServer(pod_logs, pki=plane.pki).run(node_port))
            group.create_task(Doors(api, sockets).run())
            group.create_task(children.watch())

    return Running(description={"kubeconfig": str(kubeconfig), "directory": str(directory)}, watch=watch)
