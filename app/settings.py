"""velda-config.yaml and the environment: read once, validated once, frozen. A mistake names file, line and key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app.core.proofs import CertificateProof, Proof, TokenProof
from app.core.yamltext import LIMIT, YamlError, place, read

MOST_MISTAKES = 100
"""That are told at once."""

AgentAuthentication = Literal["pod", "token", "mtls", "none"]


class SettingsError(Exception):
    """velda-config.yaml cannot be used; the text has one line a mistake: ``FILE:LINE: KEY: what is wrong``."""


class _Section(BaseModel):
    """Words under a field are those of docs/reference/settings.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Gke(_Section):
    """A GKE cluster to reach with application default credentials, in place of the kubectl context."""

    project: str = Field(min_length=1)
    """The Google Cloud project."""
    location: str = Field(min_length=1)
    """Region or zone of the cluster."""
    cluster_name: str = Field(min_length=1)
    """Its name."""


class Kubernetes(_Section):
    """One cluster and the namespaces whose AgentPools are served: one, a list, or all of them."""

    namespace: str | None = Field(default=None, min_length=1)
    """The one namespace that is served."""
    namespaces: list[str] | None = Field(default=None, min_length=1)
    """Several that are served."""
    all_namespaces: bool = False
    """Serve every namespace, those of the future too."""
    gke: Gke | None = None
    """A GKE cluster in place of the kubectl context."""

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
    """Where worker pods are made."""

    kubernetes: Kubernetes
    """The one kind of provisioner that there is."""


class Server(_Section):
    """The HTTPS port, and a second one for clients that show a certificate, which the first never asks for: an API
    server that shows webhooks one of another CA would be turned away.
    """

    host: str = "0.0.0.0"  # noqa: S104  the API server and kubelet reach it from outside
    """The address to listen at."""
    port: int = Field(default=8443, ge=1, le=65535)
    """Webhooks, health, metrics and REST."""
    client_port: int = Field(default=8444, ge=1, le=65535)
    """The same for clients that show a certificate."""
    metrics: Literal["authenticated", "open"] = "authenticated"
    """``authenticated`` shows metrics to whom RBAC allows get on /metrics, ``open`` to everyone."""
    drain_seconds: float = Field(default=0, ge=0, le=300)
    """For so long after SIGTERM webhooks are answered still, since API servers learn of it late."""


class Broker(_Section):
    """The gRPC port that agents and clients dial."""

    host: str = "0.0.0.0"  # noqa: S104  agents dial it from their pods
    """The address to listen at."""
    port: int = Field(default=50051, ge=1, le=65535)
    """The port."""
    tls: bool = False
    """Serve the port by TLS with our certificate; agents verify it by ca.crt, which the ConfigMap that is made for them
    has beside velda.yaml."""
    names: list[str] = Field(default=[], max_length=100)
    """What the Service that leads to the leader is called by, for gRPC and REST: our certificate has these names."""


class Agents(_Section):
    """What a worker pod gets: the ConfigMap with velda.yaml at /run/velda; and how an agent must prove itself."""

    config_map: str = Field(default="velda-config", min_length=1)
    """The ConfigMap that is mounted in every worker pod."""
    velda_yaml: str | None = Field(default=None, min_length=1)
    """A file. Where a pool's namespace lacks the ConfigMap, it is created from that file and kept."""
    authentication: AgentAuthentication = "pod"
    """An agent has the name of a live pod of its pool, and ``pod``: dials from that pod's address; ``token``: sends a
    token that is bound to the pod; ``mtls``: shows a certificate of our CA, over TLS. ``none`` believes every agent,
    for tests."""
    token_audience: str = Field(default="velda-agents", min_length=1)
    """Whom those tokens are for."""
    token_seconds: int = Field(default=3600, ge=600, le=86400)
    """Seconds within which the kubelet renews them."""
    image: str = ""
    """With ``mtls``: this product's image, for the init container that gets each agent's certificate."""
    certificate_url: str = ""
    """With ``mtls``: the https:// address of our HTTPS port, where certificates are issued for such tokens."""

    @model_validator(mode="after")
    def _complete(self) -> Agents:
        if self.authentication == "mtls":
            if not self.image:
                raise ValueError("authentication mtls needs image, this product's, which gets each agent's certificate")
            if not self.certificate_url.startswith("https://"):
                raise ValueError("authentication mtls needs certificate_url, the https:// address of our HTTPS port")
        return self

    @property
    def proof(self) -> Proof | None:
        """What worker pods get to prove themselves by."""
        token = TokenProof(audience=self.token_audience, seconds=self.token_seconds)
        if self.authentication == "mtls":
            return CertificateProof(token=token, image=self.image, url=self.certificate_url)
        return token if self.authentication == "token" else None


class Clients(_Section):
    """How a client of the broker must prove itself."""

    authentication: Literal["kubernetes", "none"] = "kubernetes"
    """``kubernetes`` takes a bearer token or a client certificate of the cluster and does what RBAC allows on
    agentpools; ``none`` serves everyone, for tests."""
    cache_seconds: float = Field(default=10, ge=0, le=300)
    """For how long a yes of the API server is used."""
    cache_denied_seconds: float = Field(default=2, ge=0, le=300)
    """For how long a no is."""


class Limits(_Section):
    """The most that peers may ask for; beyond it they are refused with the limit's name."""

    message_bytes: int = Field(default=4 << 20, ge=1 << 16, le=1 << 30)
    """A gRPC message."""
    header_bytes: int = Field(default=32 << 10, ge=8 << 10, le=1 << 20)
    """The headers of a request."""
    body_bytes: int = Field(default=3 << 20, ge=1 << 16, le=1 << 30)
    """An HTTP body."""
    request_seconds: int = Field(default=30, ge=1, le=3600)
    """For the headers and body of a request, or an agent's first message, to arrive."""
    connections: int = Field(default=20_000, ge=1, le=1_000_000)
    """To the gRPC port."""
    streams_per_connection: int = Field(default=1000, ge=1, le=1_000_000)
    """Calls at once of one connection."""
    new_streams: int = Field(default=10_000, ge=1, le=1_000_000)
    """Streams of agents that have not said yet who they are."""
    new_streams_per_address: int = Field(default=5000, ge=1, le=1_000_000)
    """And of those from one address."""
    slots_per_agent: int = Field(default=1000, ge=1, le=100_000)
    """Slots of an agent, and sessions that it reports."""
    unread_messages: int = Field(default=4000, ge=10, le=1_000_000)
    """Messages that an agent has not read before it counts as lost; at least twice the slots."""
    session_bytes: int = Field(default=64 << 10, ge=1 << 10, le=1 << 30)
    """A session's request, its tags, an agent's answer."""
    name_length: int = Field(default=256, ge=64, le=4096)
    """A name, in characters."""
    tags: int = Field(default=64, ge=1, le=10_000)
    """Tags of a session, and its labels."""
    waiting_per_pool: int = Field(default=5000, ge=1, le=1_000_000)
    """Requests for a session of one pool that are not answered yet."""
    waiting_per_user: int = Field(default=1000, ge=1, le=1_000_000)
    """And those of one user."""
    watches: int = Field(default=1000, ge=1, le=1_000_000)
    """Watches of pools."""

    @model_validator(mode="after")
    def _room_for_all_slots(self) -> Limits:
        if self.unread_messages < 2 * self.slots_per_agent:
            raise ValueError("unread_messages must be at least twice slots_per_agent: all slots may be filled at once")
        return self


class Webhook(_Section):
    """The webhooks, their certificates, and what the chart calls its objects."""

    service: str = "velda-apiserver-webhook"
    """The Service by which the API server reaches the webhooks."""
    certificates: Literal["own", "cert-manager"] = "own"
    """``own`` issues and publishes them, unless the Secret is a user's; ``cert-manager`` fills the Secret and writes
    the caBundle, and we only read both."""
    certificate_secret: str = Field(default="velda-apiserver-tls", min_length=1, max_length=63)
    """The Secret that holds them; the name is a label's value on our pods."""
    ca_overlap_seconds: float = Field(default=300, ge=0, le=86400)
    """For so long a new CA of ours is published before it is relied on: files in pods lag."""
    ca_config_map: str = Field(default="velda-apiserver-ca", min_length=1)
    """Where clients find the CA that they verify us by."""
    validating_configuration: str = ""
    """The ValidatingWebhookConfiguration that gets our caBundle; empty: none does."""
    mutating_configuration: str = ""
    """And the MutatingWebhookConfiguration."""
    mutate_agentpools: bool = False
    """Inject into the AgentPool itself too."""


class LeaderElection(_Section):
    """The Lease; times in seconds. The defaults are two thirds of those of client-go's leaderelection: another replica
    has taken the next decision within 15 s of a leader's sudden end.
    """

    lease: str = "velda-apiserver"
    """Its name."""
    lease_duration: float = Field(default=10, gt=0)
    """After so long without a renewal another replica takes it."""
    renew_deadline: float = Field(default=7, gt=0)
    """After so long without a renewal the leader gives up."""
    retry_period: float = Field(default=1.5, gt=0)
    """Between two tries."""

    @model_validator(mode="after")
    def _in_order(self) -> LeaderElection:
        if not self.lease_duration > self.renew_deadline > self.retry_period:
            raise ValueError("must hold: lease_duration > renew_deadline > retry_period, or two replicas could lead")
        return self


class Trace(_Section):
    """Where each pool's trace is kept, to be replayed against other numbers; none without a directory."""

    directory: str | None = Field(default=None, min_length=1)
    """Where traces are written."""
    max_bytes: int = Field(default=64 * 2**20, ge=2**16)
    """A file that has so many is replaced by a new one; three older ones of each pool stay."""


class Tracing(_Section):
    """Where OpenTelemetry spans go: reconciles, requests to the Kubernetes API, admission reviews, sessions' starts."""

    endpoint: str = Field(default="", pattern=r"^(https?://[^/\s]+:[0-9]+)?$")
    """The collector's OTLP/gRPC address, such as `http://collector.monitoring:4317`; none without it."""
    ratio: float = Field(default=1.0, ge=0, le=1)
    """The part of all traces that is sent."""


LogLevel = Literal["debug", "info", "warning", "error"]


class Log(_Section):
    """What the process prints about itself, on stderr. The levels are read again while it runs."""

    level: LogLevel = "info"
    """The least that is printed."""
    levels: dict[str, LogLevel] = Field(default={}, max_length=100)
    """Of single loggers, by the name that lines have as ``logger``, and of all below them: ``app.kube: debug``."""
    format: Literal["auto", "console", "json"] = "auto"
    """``auto``: json unless a terminal reads it."""


class Settings(_Section):
    """The whole of velda-config.yaml."""

    provisioners: list[Provisioner] = Field(min_length=1)
    server: Server = Server()
    broker: Broker = Broker()
    agents: Agents = Agents()
    clients: Clients = Clients()
    limits: Limits = Limits()
    webhook: Webhook = Webhook()
    leader_election: LeaderElection = LeaderElection()
    trace: Trace = Trace()
    tracing: Tracing = Tracing()
    log: Log = Log()

    @field_validator("provisioners")
    @classmethod
    def _one_cluster(cls, provisioners: list[Provisioner]) -> list[Provisioner]:
        clusters = {provisioner.kubernetes.gke for provisioner in provisioners}
        if len(clusters) > 1:
            raise ValueError(
                f"it names {len(clusters)} clusters, and one process serves one: "
                "start a velda-apiserver with a velda-config.yaml of its own for each"
            )
        if len(provisioners) > 1:
            raise ValueError(
                "all of them name the same cluster: keep one, with all its namespaces in namespaces: [a, b]"
            )
        return provisioners

    @model_validator(mode="after")
    def _one_ca(self) -> Settings:
        if self.agents.authentication == "mtls" and self.webhook.certificates == "cert-manager":
            raise ValueError("agents.authentication mtls needs a CA of ours: webhook.certificates must be own")
        return self

    @property
    def broker_tls(self) -> bool:
        """A certificate is shown over TLS only."""
        return self.broker.tls or self.agents.authentication == "mtls"

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
        with path.open(encoding="utf-8") as file:
            text = file.read(LIMIT + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Settings:
    """Validate the text of velda-config.yaml; ``name`` is what messages call the file."""
    try:
        node, document = read(text)
    except YamlError as error:
        raise SettingsError(f"{name}:{error.line}: {error.why}") from error
    try:
        return Settings.model_validate(document if document is not None else {})
    except ValidationError as error:
        lines = [_describe(name, node, item["loc"], item["msg"]) for item in error.errors()[:MOST_MISTAKES]]
        raise SettingsError("\n".join(lines)) from error


def _describe(name: str, root: yaml.Node | None, location: tuple[int | str, ...], message: str) -> str:
    key = ".".join(f"[{part}]" if isinstance(part, int) else part for part in location).replace(".[", "[")
    message = message.removeprefix("Value error, ").replace("Extra inputs are not permitted", "unknown key")
    return f"{name}:{place(root, location).line}: {key or 'document'}: {message}"
