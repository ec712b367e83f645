"""velda.yaml as the agent reads it: keys of the real agent without a use here are accepted, and a typo is told."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.yamltext import LIMIT, YamlError, read

_KNOWN: dict[str, Any] = {
    "broker": {"address": {}, "public_address": {}, "tls": {}},
    "pool": {},
    "sandbox_config": {
        "disk_source": {
            "mounted_disk_source": {"local_path": {}},
            "nfs_mount_source": {"mount_options": {}, "snapshot_mount_options": {}},
            "cas_config": {},
        },
        "allowed_host_mount_sources": {},
        "host_mounts": {},
        "max_time": {},
        "host_local_mount_base_dir": {},
        "allocate_tty": {},
        "apparmor_profile": {},
        "nvidia_driver_install_dir": {},
    },
    "daemon_config": {
        "work_dir_path": {},
        "max_sessions": {},
        "network": {
            "private_cidr_range": {},
            "detect_gcp_alias_ip_ranges": {},
            "network_mode": {},
            "block_metadata_server": {},
        },
        "primary_network_device_name": {},
        "mtls_client_cert_path": {},
        "mtls_client_key_path": {},
        "agent_name": {},
    },
}
"""All keys that the real agent knows, and broker.tls, ours; below an empty mapping anything may stand."""

log = logging.getLogger(__name__)


class ConfigError(Exception):
    """velda.yaml cannot be used; the text is one line for the operator."""


@dataclass(frozen=True)
class AgentConfig:
    """What the agent takes from velda.yaml; empty strings where it says nothing."""

    broker_address: str
    pool: str = ""
    agent_name: str = ""
    max_sessions: int = 1
    tls: bool = False
    client_certificate: str = ""
    client_key: str = ""

    @property
    def speaks_tls(self) -> bool:
        """A certificate is shown over TLS only."""
        return self.tls or bool(self.client_certificate)

    def name(self, environ: Mapping[str, str] = os.environ) -> str:
        """The agent_id: in Kubernetes the short host name, which is the pod's name."""
        return self.agent_name or environ.get("AGENT_NAME") or socket.gethostname().partition(".")[0]


def load(path: Path) -> AgentConfig:
    """Read ``path``; raises ConfigError."""
    try:
        with path.open(encoding="utf-8") as file:
            _, document = read(file.read(LIMIT + 1))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    except YamlError as error:
        raise ConfigError(f"{path}:{error.line}: {error.why}") from error
    try:
        return _parse(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _parse(document: Any) -> AgentConfig:
    root = _mapping({"velda.yaml": document}, "velda.yaml")
    _warn_unknown(root, _KNOWN)
    broker, daemon = _mapping(root, "broker"), _mapping(root, "daemon_config")
    address = _string(broker, "broker", "address")
    if not address:
        raise ConfigError("broker.address is missing")
    slots = daemon.get("max_sessions")
    if slots is not None and (not isinstance(slots, int) or isinstance(slots, bool) or slots < 0):
        raise ConfigError("daemon_config.max_sessions must be a whole number, 1 or more")
    tls = broker.get("tls", False)
    if not isinstance(tls, bool):
        raise ConfigError("broker.tls must be true or false")
    config = AgentConfig(
        broker_address=address,
        tls=tls,
        pool=_string(root, "", "pool"),
        agent_name=_string(daemon, "daemon_config", "agent_name"),
        max_sessions=slots or 1,
        client_certificate=_string(daemon, "daemon_config", "mtls_client_cert_path"),
        client_key=_string(daemon, "daemon_config", "mtls_client_key_path"),
    )
    if bool(config.client_certificate) != bool(config.client_key):
        raise ConfigError("daemon_config.mtls_client_cert_path and mtls_client_key_path go together")
    return config


def _mapping(parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{key} must be a mapping")
    return value


def _string(parent: dict[str, Any], section: str, key: str) -> str:
    value = parent.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"{section}{'.' if section else ''}{key} must be a string")
    return value


def _warn_unknown(node: Any, known: dict[str, Any], path: str = "") -> None:
    if not known or not isinstance(node, dict):
        return
    for key, value in node.items():
        where = f"{path}{key}"
        if key in known:
            _warn_unknown(value, known[key], f"{where}.")
        else:
            log.warning("velda.yaml: unknown key %s is ignored", where)
