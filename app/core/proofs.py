"""By what a worker pod can prove which pod it is: a token that the kubelet renews, or a certificate of our CA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOKEN_DIRECTORY = "/var/run/secrets/velda.io/agent"  # noqa: S105  a path
TOKEN_FILE = f"{TOKEN_DIRECTORY}/token"
CERTIFICATE_DIRECTORY = "/var/run/secrets/velda.io/certificate"
CERTIFICATE_FILE = f"{CERTIFICATE_DIRECTORY}/tls.crt"
KEY_FILE = f"{CERTIFICATE_DIRECTORY}/tls.key"
CA_KEY = "ca.crt"
"""Beside velda.yaml: the CA that verifies our servers."""
INIT_CONTAINER = "velda-certificate"


@dataclass(frozen=True)
class TokenProof:
    """A projected service-account token, bound to the pod, for one audience; ``seconds`` is its life."""

    audience: str
    seconds: int


@dataclass(frozen=True)
class CertificateProof:
    """A client certificate, which an init container of ``image`` gets from ``url`` for such a token."""

    token: TokenProof
    image: str
    url: str


Proof = TokenProof | CertificateProof


def directory_of(proof: Proof) -> str:
    """Where the agent's container finds its proof."""
    return TOKEN_DIRECTORY if isinstance(proof, TokenProof) else CERTIFICATE_DIRECTORY


def token_volume(proof: TokenProof) -> dict[str, Any]:
    """The volume's source; no automounted token is needed."""
    token = {"audience": proof.audience, "expirationSeconds": proof.seconds, "path": "token"}
    return {"projected": {"sources": [{"serviceAccountToken": token}]}}


def certificate_volume() -> dict[str, Any]:
    """A key is never on a disk."""
    return {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}


def init_container(
    proof: CertificateProof,
    agent: Mapping[str, Any],
    *,
    config_directory: str,
    config_volume: str,
    token: str,
    certificate: str,
) -> dict[str, Any]:
    """What gets the certificate before the agent starts. The last three arguments name volumes.

    It runs as the agent's user, who alone may read the key; and it asks for no more than the agent does, so that the
    pod's size, class of service and place in a quota stay what they were.
    """
    security = agent.get("securityContext") or {}
    resources = agent.get("resources") or {}
    container = {
        "name": INIT_CONTAINER,
        "image": proof.image,
        "args": [
            "agent-certificate",
            f"--url={proof.url}",
            f"--ca={config_directory}/{CA_KEY}",
            f"--token={TOKEN_FILE}",
            f"--directory={CERTIFICATE_DIRECTORY}",
        ],
        "securityContext": {
            **{key: security[key] for key in ("runAsUser", "runAsGroup", "runAsNonRoot") if key in security},
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": config_volume, "mountPath": config_directory, "readOnly": True},
            {"name": token, "mountPath": TOKEN_DIRECTORY, "readOnly": True},
            {"name": certificate, "mountPath": CERTIFICATE_DIRECTORY},
        ],
    }
    own = {kind: _cpu_and_memory(resources.get(kind)) for kind in ("requests", "limits")}
    if any(own.values()):
        container["resources"] = {kind: values for kind, values in own.items() if values}
    return container


def _cpu_and_memory(quantities: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (quantities or {}).items() if key in ("cpu", "memory")}
