"""Our kube-proxy for loopback: a ClusterIP is an address that we listen on, in every network namespace of the stage.

A connection goes to a ready pod that the Service selects and keeps the address that it came from, so that the broker
sees each agent's own. (EndpointSlices do not help here: Kubernetes refuses loopback addresses in them.)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.api import Api, Object
from tests.support.netns import Netns
from tests.support.relay import relay

Key = tuple[str, str]
"""Namespace and name."""


def key_of(item: Object) -> Key:
    return item["metadata"]["namespace"], item["metadata"]["name"]


@dataclass
class Network:
    """One namespace with its listeners; ``address`` is where connections from it come from (None: as the peer).

    ``hosts`` is the /etc/hosts of its pod, which is in the Kubernetes namespace ``home``. ``taken`` are the ports that
    the pod itself listens on, on all addresses: Services of that port are out of its reach.
    """

    netns: Netns
    address: str | None = None
    hosts: Path | None = None
    home: str = ""
    taken: frozenset[int] = frozenset()
    servers: dict[tuple[str, int], asyncio.Server] = field(default_factory=dict)


class Target(NamedTuple):
    netns: Netns
    address: str
    port: int


class ServiceProxy:
    """``api_server`` is what stands behind the Service ``default/kubernetes``, which has no selector."""

    def __init__(self, api: Api, *, api_server: tuple[str, int]) -> None:
        self._api = api
        self._api_server = api_server
        self._services: dict[Key, Object] = {}
        self._pods: dict[Key, Object] = {}
        self._own = Network(Netns())
        self._networks: dict[Key, Network] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow("/api/v1/services", self._services, self._listen_everywhere))
            group.create_task(self._follow("/api/v1/pods", self._pods, lambda: None))

    async def add_network(self, pod: Key, network: Network) -> None:
        """A pod with a network namespace of its own, where the Services must be too."""
        self._networks[pod] = network
        await self._listen(network)

    def remove_network(self, pod: Key) -> None:
        network = self._networks.pop(pod, None)
        if network is not None:
            for server in network.servers.values():
                server.close()
            network.netns.close()

    def _hosts(self, namespace: str) -> str:
        """Every Service under the names that cluster DNS gives it."""
        lines = ["127.0.0.1 localhost"]
        for (home, name), service in self._services.items():
            address = self._address(service)
            if address:
                short = [name] if home == namespace else []
                names = [f"{name}.{home}.svc.cluster.local", f"{name}.{home}.svc", f"{name}.{home}", *short]
                lines.append(f"{address} {' '.join(names)}")
        return "\n".join(lines) + "\n"

    def _address(self, service: Object) -> str:
        """Empty where cluster DNS has no single address; an ExternalName is that of the Service which it names."""
        spec = service["spec"]
        if spec["type"] == "ExternalName":
            name, _, rest = str(spec["externalName"]).partition(".")
            target = self._services.get((rest.partition(".")[0], name))
            return self._address(target) if target is not None and target is not service else ""
        return str(spec.get("clusterIP", "")).replace("None", "")

    async def _follow(self, path: str, store: dict[Key, Object], changed: Callable[[], Any]) -> None:
        async for change in self._api.watch(path):
            if change.gone:
                store.pop(key_of(change.object), None)
            else:
                store[key_of(change.object)] = change.object
            result = changed()
            if result is not None:
                await result

    async def _listen_everywhere(self) -> None:
        for network in (self._own, *self._networks.values()):
            await self._listen(network)

    async def _listen(self, network: Network) -> None:
        """Listen where Services are now, and nowhere else."""
        wanted = {address: key for address, key in self._addresses() if address[1] not in network.taken}
        for address in network.servers.keys() - wanted.keys():
            network.servers.pop(address).close()
        for address in wanted.keys() - network.servers.keys():
            handler = self._handler(wanted[address], address[1], network)
            listener = network.netns.listener(address)
            network.servers[address] = await asyncio.start_server(handler, sock=listener)
        if network.hosts is not None:
            network.hosts.write_text(self._hosts(network.home))  # in place: the pod has this very file mounted

    def _addresses(self) -> list[tuple[tuple[str, int], Key]]:
        return [
            ((service["spec"]["clusterIP"], port["port"]), key)
            for key, service in self._services.items()
            if service["spec"].get("clusterIP", "None") != "None"
            for port in service["spec"].get("ports", [])
        ]

    def _handler(
        self, key: Key, port: int, network: Network
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            source = network.address or writer.get_extra_info("peername")[0]
            try:
                backend = await self._connect(key, port, source)
            except OSError:
                writer.transport.abort()  # as kube-proxy does: a Service without endpoints refuses
                return
            await relay((reader, writer), backend)

        return handle

    async def _connect(self, key: Key, port: int, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        targets = self._targets(key, port)
        if not targets:
            raise ConnectionRefusedError(f"no ready pod behind {key}")
        target = random.choice(targets)
        dialer = target.netns.dialer(source)
        try:
            await asyncio.get_running_loop().sock_connect(dialer, (target.address, target.port))
            return await asyncio.open_connection(sock=dialer)
        except BaseException:
            dialer.close()
            raise

    def _targets(self, key: Key, port: int) -> list[Target]:
        spec = self._services[key]["spec"] if key in self._services else {}
        if key == ("default", "kubernetes"):
            return [Target(self._own.netns, *self._api_server)]
        named = next((item for item in spec.get("ports", []) if item["port"] == port), None)
        if named is None or not spec.get("selector"):
            return []
        pods = [pod for pod in self._pods.values() if pod["metadata"]["namespace"] == key[0] and _serves(pod, spec)]
        return [
            Target(
                self._networks[key_of(pod)].netns if key_of(pod) in self._networks else self._own.netns,
                pod["status"]["podIP"],
                _target_port(pod, named),
            )
            for pod in pods
        ]


def _serves(pod: Object, service: Object) -> bool:
    labels = pod["metadata"].get("labels", {})
    conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions", [])}
    return (
        all(labels.get(name) == value for name, value in service["selector"].items())
        and (conditions.get("Ready") == "True" or bool(service.get("publishNotReadyAddresses")))
        and "deletionTimestamp" not in pod["metadata"]
        and bool(pod["status"].get("podIP"))
    )


def _target_port(pod: Object, port: Object) -> int:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for declared in container.get("ports", []):
            if declared.get("name") == target:
                return int(declared["containerPort"])
    raise ConnectionRefusedError(f"no container port is called {target}")
