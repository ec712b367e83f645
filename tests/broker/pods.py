"""Pods of a real API server, and what they prove themselves by: tokens and certificates, good and bad."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from app.model.meta import NamespacedName
from certs.agents import issue_agent, pod_uri
from certs.authority import issue_authority, issue_leaf
from tests.broker.world import Pools
from tests.support.cluster import Cluster

AUDIENCE = "velda-agents"
NOW = datetime.now(UTC)
PEM = serialization.Encoding.PEM


class Home:
    """A namespace with a pool ``cpu``, and the directory that shows its pods to a broker."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.namespace = cluster.namespace()
        self.pool = NamespacedName(self.namespace, "cpu")
        self.pools = Pools(self.pool)

    def pod(self, *, name: str = "", ip: str = "127.0.0.1") -> str:
        """Make one, under a name of its own if none is given, and show it; its name."""
        name = name or f"cpu-{uuid.uuid4().hex[:8]}"
        spec = {"containers": [{"name": "agent", "image": "agent"}], "automountServiceAccountToken": False}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        text = json.dumps(manifest)
        self.cluster.kubectl("apply", f"--namespace={self.namespace}", "--filename=-", input=text)
        self.pools.add_pod(self.pool, name, ip=ip, uid=self.uid(name))
        return name

    def uid(self, name: str) -> str:
        return str(self.cluster.get("pod", name, f"--namespace={self.namespace}")["metadata"]["uid"])

    def token(self, pod: str, *, audience: str = AUDIENCE) -> str:
        """As the kubelet asks for it."""
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}", f"--bound-object-uid={self.uid(pod)}")
        return self._create("token", "default", f"--audience={audience}", *bound)

    def unbound_token(self) -> str:
        return self._create("token", "default", f"--audience={AUDIENCE}")

    def expired(self, token: str) -> str:
        """The same token, of the API server's own key, over since 2001: none is made for less than 10 minutes."""
        head, body, _ = token.split(".")
        claims = {**_decode(body), "iat": 999_990_000, "nbf": 999_990_000, "exp": 1_000_000_000}
        signed = f"{head}.{_encode(json.dumps(claims).encode())}"
        return f"{signed}.{_encode(_sign(self.cluster.directory / 'pki' / 'sa.key', signed.encode()))}"

    def delete(self, pod: str) -> None:
        self.cluster.kubectl("delete", "pod", pod, f"--namespace={self.namespace}", "--now")

    def _create(self, *args: str) -> str:
        return self.cluster.kubectl("create", *args, f"--namespace={self.namespace}").stdout.strip()


def _sign(path: Path, text: bytes) -> bytes:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def _encode(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _decode(text: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return claims


class Authority:
    """A CA of ours, its server, and what it issues to agents."""

    def __init__(self) -> None:
        self.pair = issue_authority(now=NOW)
        self.server = issue_leaf(self.pair, names=["127.0.0.1"], now=NOW)

    def client(self, server: Authority, *, name: str = "a", uid: str = "uid of a") -> grpc.ChannelCredentials:
        """An agent's certificate, to be shown to ``server``."""
        key = ec.generate_private_key(ec.SECP256R1())
        signing = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        uri = pod_uri(namespace="default", name=name, uid=uid)
        certificate = issue_agent(self.pair, request=signing.public_bytes(PEM), uri=uri, now=NOW)
        form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return grpc.ssl_channel_credentials(server.pair.certificate, key.private_bytes(PEM, *form), certificate)
