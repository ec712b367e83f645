"""velda-config.yaml and the environment: read once, validated once, frozen. A mistake names file, line and key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class SettingsError(Exception):
    """velda-config.yaml cannot be used; the text has one line a mistake: ``FILE:LINE: KEY: what is wrong``."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Gke(_Section):
    """A GKE cluster to reach with application default credentials, in place of the kubectl context."""

    project: str = Field(min_length=1)
    location: str = Field(min_length=1)
    cluster_name: str = Field(min_length=1)


class Kubernetes(_Section):
    """One cluster and the namespaces whose AgentPools are served: one, a list, or all of them."""

    namespace: str | None = Field(default=None, min_length=1)
    namespaces: list[str] | None = Field(default=None, min_length=1)
    all_namespaces: bool = False
    gke: Gke | None = None

    @model_validator(mode="after")
    def _one_choice(self) -> Kubernetes:
        if (self.namespace is not None) + (self.namespaces is not None) + self.all_namespaces != 1:
            raise ValueError("set exactly one of namespace, namespaces, all_namespaces: true")
        return self

    @property
    def watched(self) -> tuple[str, ...]:
        """The namespaces to watch; empty means all."""
        if self.all_namespaces:
            return ()
        return tuple(dict.fromkeys([self.namespace] if self.namespace else self.namespaces or []))


class Provisioner(_Section):
    kubernetes: Kubernetes


class Server(_Section):
    """The HTTPS port: webhooks, health, metrics."""

    host: str = "0.0.0.0"  # noqa: S104  the API server and kubelet reach it from outside
    port: int = Field(default=8443, ge=1, le=65535)


class Broker(_Section):
    """The gRPC port that agents and clients dial."""

    host: str = "0.0.0.0"  # noqa: S104  agents dial it from their pods
    port: int = Field(default=50051, ge=1, le=65535)


class Agents(_Section):
    """What a worker pod gets, the ConfigMap with velda.yaml mounted at /run/velda; and how an agent must prove itself.

    ``velda_yaml`` names a file; where a pool's namespace lacks the ConfigMap, it is created from that file and kept.
    ``authentication``: ``pod`` takes an agent only under the name of a live pod of its pool and from that pod's
    address; ``none`` believes every agent, for tests.
    """

    config_map: str = Field(default="velda-config", min_length=1)
    velda_yaml: str | None = Field(default=None, min_length=1)
    authentication: Literal["pod", "none"] = "pod"


class Webhook(_Section):
    """Names of the chart's objects; empty configuration names mean that no caBundle is published."""

    service: str = "velda-apiserver-webhook"
    certificate_secret: str = "velda-apiserver-tls"  # noqa: S105  a Secret's name
    validating_configuration: str = ""
    mutating_configuration: str = ""
    mutate_agentpools: bool = False


class LeaderElection(_Section):
    """The Lease; times in seconds (source of the defaults: client-go's leaderelection)."""

    lease: str = "velda-apiserver"
    lease_duration: float = Field(default=15, gt=0)
    renew_deadline: float = Field(default=10, gt=0)
    retry_period: float = Field(default=2, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> LeaderElection:
        if not self.lease_duration > self.renew_deadline > self.retry_period:
            raise ValueError("must hold: lease_duration > renew_deadline > retry_period, or two replicas could lead")
        return self


class Trace(_Section):
    """Where each pool's trace is kept, to be replayed against other numbers; none without a directory."""

    directory: str | None = Field(default=None, min_length=1)
    max_bytes: int = Field(default=64 * 2**20, ge=2**16)


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Settings(_Section):
    """The whole of velda-config.yaml."""

    provisioners: list[Provisioner] = Field(min_length=1, max_length=1)
    server: Server = Server()
    broker: Broker = Broker()
    agents: Agents = Agents()
    webhook: Webhook = Webhook()
    leader_election: LeaderElection = LeaderElection()
    trace: Trace = Trace()
    log: Log = Log()

    @property
    def kubernetes(self) -> Kubernetes:
        return self.provisioners[0].kubernetes


class Identity(BaseModel):
    """Who this process is, from the environment (the downward API in a cluster)."""

    model_config = ConfigDict(frozen=True)

    pod_name: str | None = None
    namespace: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Identity:
        return cls(pod_name=environ.get("POD_NAME") or None, namespace=environ.get("POD_NAMESPACE") or None)


def load(path: Path) -> Settings:
    """Read and validate ``path``; raises SettingsError with every mistake, each with its line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Settings:
    """Validate the text of velda-config.yaml; ``name`` is what messages call the file."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_duplicate_keys(node, name)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{name}:{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{name}:1: not valid YAML: {error}") from error
    try:
        return Settings.model_validate(document if document is not None else {})
    except ValidationError as error:
        lines = [_describe(name, node, item["loc"], item["msg"]) for item in error.errors()]
        raise SettingsError("\n".join(lines)) from error


def _describe(name: str, root: yaml.Node | None, location: tuple[int | str, ...], message: str) -> str:
    key = ".".join(f"[{part}]" if isinstance(part, int) else part for part in location).replace(".[", "[")
    message = message.removeprefix("Value error, ").replace("Extra inputs are not permitted", "unknown key")
    return f"{name}:{_line(root, location)}: {key or 'document'}: {message}"


def _line(root: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line of the key, or of its nearest parent that the file has."""
    line, node = 1, root
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _refuse_duplicate_keys(node: Any, name: str) -> None:
    """YAML takes the last of two equal keys without a word; a setting that is silently dropped is a mistake."""
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, yaml.SequenceNode):
            stack.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen:
                    raise SettingsError(f"{name}:{key.start_mark.line + 1}: {key.value}: the key is there twice")
                seen.add(key.value)
                stack.append(value)
