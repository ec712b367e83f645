"""A real node: containerd with crun, bridge CNI, kubelet, kube-proxy, CoreDNS, and a registry that is docker.io."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.support import cgroups, images
from tests.support.node_tools import CNI
from tests.support.plane import Plane
from tests.support.process import Children, StageError, output_of
from tests.support.tools import tool

NAME = "node-0"
ADDRESS = "10.99.0.1"
POD_CIDR = "10.88.0.0/16"
KWOK_POD_CIDR = "10.77.0.1/16"
CLUSTER_CIDR = "10.64.0.0/10"
"""Holds both pod ranges: from them connections to Services keep their address."""
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
_REGISTRY_PORT = 5000
_READY_TIMEOUT = "90s"


async def prepare_network() -> None:
    """A bridge that holds the node's address (a loopback one is refused), and the addresses of kwok's pods."""
    for command in (
        "ip link set lo up",
        "ip link add n0 type bridge",
        f"ip addr add {ADDRESS}/24 dev n0",
        "ip link set n0 up",
        "ip route add default dev n0",
        f"ip route add local {KWOK_POD_CIDR.replace('.1/', '.0/')} dev lo",
        "sysctl --quiet --write net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1",
    ):
        await output_of(*command.split())


async def prepare_mounts(name: str) -> None:
    """Paths that containerd and kubelet write to whatever one tells them are the stage's own; crun wants plain v1.

    Beside it crun makes a directory for each container where version 2 would be, and takes none away: they would fill
    this machine's /sys/fs/cgroup, which has room for a thousand.
    """
    for path in ("/run", "/var/lib", "/var/log"):
        await output_of("mount", "-t", "tmpfs", "stage", path)
    if " /sys/fs/cgroup/unified " in await output_of("cat", "/proc/self/mounts"):
        await output_of("umount", "/sys/fs/cgroup/unified")
        await output_of("mount", "-t", "tmpfs", "stage", "/sys/fs/cgroup/unified")
    for subtree, hierarchy in cgroups.make(name):
        await output_of("mount", "--bind", subtree, hierarchy)


class Node:
    """Everything on the node beside the control plane; all files are below the stage's directory."""

    def __init__(self, directory: Path, plane: Plane, children: Children, *, registry: Path) -> None:
        self._directory = directory
        self._plane = plane
        self._children = children
        self._registry = registry
        self._socket = directory / "containerd.sock"

    async def start(self) -> None:
        """The registry holds a copy: what is cached stays as it was built."""
        await self._start_registry()
        await self._start_containerd()
        await self._start_dns()
        await self._start_proxy()
        await self._start_kubelet()
        kubectl = (tool("kubectl"), f"--kubeconfig={self._plane.kubeconfig}")
        await output_of(*kubectl, "wait", "--for=create", f"node/{NAME}", f"--timeout={_READY_TIMEOUT}")
        await output_of(*kubectl, "wait", "--for=condition=Ready", f"node/{NAME}", f"--timeout={_READY_TIMEOUT}")

    async def _start_registry(self) -> None:
        path = self._directory / "registry.yml"
        path.write_text(images.registry_configuration(self._registry, _REGISTRY_PORT))
        await self._children.start("registry", "docker-registry", "serve", path)

    async def _start_containerd(self) -> None:
        directory = self._directory
        hosts = directory / "certs.d" / "docker.io"
        hosts.mkdir(parents=True)
        url = f"http://127.0.0.1:{_REGISTRY_PORT}"
        (hosts / "hosts.toml").write_text(f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n')
        (directory / "cni").mkdir()
        (directory / "cni" / "10-pods.conflist").write_text(json.dumps(self._cni()))
        path = directory / "containerd.toml"
        path.write_text(
            _CONTAINERD.format(
                directory=directory, socket=self._socket, cni=CNI, crun=shutil.which("crun"), pause=images.PAUSE
            )
        )
        await self._children.start("containerd", "containerd", "--config", path)
        await self._answers()

    def _cni(self) -> dict[str, Any]:
        ipam = {
            "type": "host-local",
            "dataDir": str(self._directory / "ipam"),
            "ranges": [[{"subnet": POD_CIDR}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, portmap]}

    async def _start_dns(self) -> None:
        path = self._directory / "Corefile"
        kubeconfig = self._plane.kubeconfig
        path.write_text(
            f".:53 {{\n  bind {ADDRESS}\n  kubernetes cluster.local {{\n    kubeconfig {kubeconfig}\n  }}\n}}\n"
        )
        await self._children.start("coredns", tool("coredns"), "-conf", path)

    async def _start_proxy(self) -> None:
        await self._children.start(
            "kube-proxy",
            tool("kube-proxy"),
            f"--kubeconfig={self._plane.kubeconfig}",
            f"--hostname-override={NAME}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={CLUSTER_CIDR}",
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        )

    async def _start_kubelet(self) -> None:
        path = self._directory / "kubelet.yaml"
        path.write_text(yaml.safe_dump(self._kubelet()))
        root = self._directory / "kubelet"
        await self._children.start(
            "kubelet",
            tool("kubelet"),
            f"--config={path}",
            f"--kubeconfig={self._plane.kubeconfig}",
            f"--root-dir={root}",
            f"--cert-dir={root / 'pki'}",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
        )

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "volumePluginDir": str(self._directory / "volume-plugins"),
            "syncFrequency": "10s",
        }

    async def _answers(self) -> None:
        """Nothing tells when a daemon has made its socket."""
        for _ in range(300):
            try:
                _, writer = await asyncio.open_unix_connection(self._socket)
            except OSError:
                self._children.check()
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return
        raise StageError("containerd does not answer: see the logs")


_CONTAINERD = """\
version = 2
root = "{directory}/containerd"
state = "{directory}/containerd-run"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{pause}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{directory}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{crun}"
"""
