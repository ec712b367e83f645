"""A Kubernetes control plane as processes of ours: etcd, API server, controller manager, scheduler."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.support.pki import Pki
from tests.support.process import Children, StageError, free_port
from tests.support.tools import tool

AUDIT_LOG = "audit.log"
"""Among a plane's logs: each request of a service account of the namespace ``velda``, about a second late."""
_AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - {level: Metadata, userGroups: ["system:serviceaccounts:velda"]}
  - {level: None}
"""
_BOOT_TIMEOUT = 90.0
_CLIENT_LIMIT = 1000
"""Requests a second that controller manager and scheduler may send; their default of 20 would be what we measure."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Where the control plane listens and which addresses Services get (the first one is the API server's)."""

    address: str
    service_cidr: str
    first_service: str
    reconcile_endpoints: bool = False
    """Loopback addresses are refused as endpoints, so only a plane on a real address keeps its own."""


class Plane:
    """Boots in about 5 s; ``kubeconfig`` is the administrator's."""

    def __init__(self, directory: Path, network: Network, children: Children) -> None:
        self.directory = directory
        self.pki = Pki(directory / "pki")
        self.network = network
        self.port = free_port(network.address)
        self.kubeconfig = directory / "admin.kubeconfig"
        self._children = children

    @property
    def server(self) -> str:
        return f"https://{self.network.address}:{self.port}"

    async def start(self) -> None:
        self.pki.kubeconfig(self.kubeconfig, server=self.server, user="admin", group="system:masters")
        public, private = self.pki.service_account_keys()
        etcd = await self._start_etcd()
        await self._start_apiserver(etcd, public=public, private=private)
        await self._ready()
        await self._start_controllers(private)

    async def restart(self, name: str) -> None:
        """kill -9 of one of its processes and a start as before; returns once the API server is ready again."""
        await self._children.kill(name)
        await self._children.again(name)
        await self._ready()

    def kubeconfig_for(self, name: str, user: str) -> Path:
        """A component's own identity, so that RBAC holds for it as in any cluster."""
        return self.pki.kubeconfig(self.directory / f"{name}.kubeconfig", server=self.server, user=user)

    async def _start_etcd(self) -> str:
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        await self._children.start(
            "etcd",
            tool("etcd"),
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        return client

    async def _start_apiserver(self, etcd: str, *, public: Path, private: Path) -> None:
        network = self.network
        hosts = [network.address, "127.0.0.1", network.first_service, "localhost", "kubernetes.default.svc"]
        certificate, key = self.pki.issue_server("kube-apiserver", hosts=hosts)
        (audit := self.directory / "audit.yaml").write_text(_AUDIT_POLICY)
        proxy_certificate, proxy_key = self.pki.issue_client("front-proxy", user="front-proxy")
        await self._children.start(
            "kube-apiserver",
            tool("kube-apiserver"),
            f"--etcd-servers={etcd}",
            f"--bind-address={network.address}",
            f"--advertise-address={network.address}",
            f"--secure-port={self.port}",
            f"--endpoint-reconciler-type={'lease' if network.reconcile_endpoints else 'none'}",
            f"--service-cluster-ip-range={network.service_cidr}",
            f"--cert-dir={self.directory}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.pki.ca}",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
            f"--proxy-client-cert-file={proxy_certificate}",
            f"--proxy-client-key-file={proxy_key}",
            f"--requestheader-client-ca-file={self.pki.ca}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={audit}",
            f"--audit-log-path={self.directory / 'logs' / AUDIT_LOG}",
            "--audit-log-mode=batch",
            "--audit-log-batch-max-wait=1s",
            "--max-requests-inflight=2000",
            "--max-mutating-requests-inflight=1000",
        )

    async def _start_controllers(self, service_account_key: Path) -> None:
        await self._start_component(
            "kube-controller-manager",
            f"--service-account-private-key-file={service_account_key}",
            f"--root-ca-file={self.pki.ca}",
            "--use-service-account-credentials=true",
        )
        await self._start_component("kube-scheduler")

    async def _start_component(self, name: str, *flags: str) -> None:
        kubeconfig = self.kubeconfig_for(name, f"system:{name}")
        await self._children.start(
            name,
            tool(name),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--secure-port={free_port()}",
            f"--cert-dir={self.directory}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            f"--kube-api-qps={_CLIENT_LIMIT}",
            f"--kube-api-burst={_CLIENT_LIMIT}",
            *flags,
        )

    async def _ready(self) -> None:
        """Poll /readyz: no event says that a process which is just booting listens."""
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        deadline = asyncio.get_running_loop().time() + _BOOT_TIMEOUT
        async with aiohttp.ClientSession() as session:
            while not await _answers_ok(session, f"{self.server}/readyz", context):
                self._children.check()
                if asyncio.get_running_loop().time() > deadline:
                    raise StageError(f"kube-apiserver is not ready after {_BOOT_TIMEOUT:.0f} s")
                await asyncio.sleep(0.1)


async def _answers_ok(session: aiohttp.ClientSession, url: str, context: ssl.SSLContext) -> bool:
    try:
        async with session.get(url, ssl=context) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
