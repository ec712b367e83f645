"""What the process measures, in Prometheus' conventions. One registry, so that a test can read it alone.

Labels have few values each, all of our choosing: what is told by pool is in app/obs/pools.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from app import __version__
from app.obs.pools import POOLS

# A second series for each counter, of which Prometheus makes nothing in this format.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

BUILD = Info("velda_build", "1, with the version of the server.", registry=REGISTRY)
BUILD.info({"version": __version__})
LEADING = Gauge("velda_leader", "1 while this replica leads.", registry=REGISTRY)
READY = Gauge("velda_ready", "1 while this replica answers webhooks, as /readyz has it.", registry=REGISTRY)

API_REQUESTS = Counter(
    "velda_api_requests_total",
    "Requests to the Kubernetes API, by method and HTTP code (0: no answer).",
    ["method", "code"],
    registry=REGISTRY,
)
API_SECONDS = Histogram(
    "velda_api_request_seconds",
    "Time until the Kubernetes API has answered a request, watches left out.",
    ["method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
WATCH_RESTARTS = Counter(
    "velda_watch_restarts_total",
    "Watches that ended and were begun again, by resource and cause (end, relist, error).",
    ["resource", "cause"],
    registry=REGISTRY,
)

RECONCILES = Counter("velda_reconcile_total", "Reconciles, by result (ok, error).", ["result"], registry=REGISTRY)
RECONCILE_SECONDS = Histogram(
    "velda_reconcile_seconds", "Time of one reconcile, API calls left out.", registry=REGISTRY
)

QUEUE_DEPTH = Gauge("velda_reconcile_queue_depth", "Pools that wait for a reconcile.", registry=REGISTRY)
QUEUE_SECONDS = Histogram(
    "velda_reconcile_queue_seconds",
    "Time from when a pool needs a reconcile until that begins.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)

TIME_TO_IDLE = Histogram(
    "velda_time_to_idle_seconds",
    "Time from when the leader first saw an agent's pod until the agent has joined.",
    buckets=(0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200),
    registry=REGISTRY,
)
SESSION_QUEUE_SECONDS = Histogram(
    "velda_session_queue_seconds",
    "Time from a session's request until an agent is asked to start it.",
    buckets=(0.001, 0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800),
    registry=REGISTRY,
)
TIME_TO_SESSION = Histogram(
    "velda_time_to_session_seconds",
    "Time from a session's request until it runs.",
    buckets=(0.001, 0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800),
    registry=REGISTRY,
)
BROKER_REFUSALS = Counter(
    "velda_broker_refusals_total", "Requests and streams ended with an error, by reason.", ["reason"], registry=REGISTRY
)
LIMIT_REFUSALS = Counter(
    "velda_limit_refusals_total",
    "Requests, streams and connections refused or ended by a limit, by its name in velda-config.yaml.",
    ["limit"],
    registry=REGISTRY,
)

ADMISSIONS = Counter(
    "velda_admission_total",
    "Admission reviews answered, by webhook (validate, mutate), operation and code (200, 400, 403, 422, 503).",
    ["webhook", "operation", "code"],
    registry=REGISTRY,
)
ADMISSION_SECONDS = Histogram(
    "velda_admission_seconds",
    "Time to answer an admission review, calls to the API server included.",
    ["webhook"],
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=REGISTRY,
)
ADMISSION_WAIT_SECONDS = Histogram(
    "velda_admission_wait_seconds",
    "The part of velda_admission_seconds that waited for what the API server says of an AgentPool.",
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=REGISTRY,
)

CERTIFICATE_EXPIRY = Gauge(
    "velda_certificate_expiry_timestamp_seconds",
    "When the certificate expires, by kind (ca: the one that signs, leaf: the one that is served).",
    ["kind"],
    registry=REGISTRY,
)
CERTIFICATE_PHASE = Gauge(
    "velda_certificate_rotation_phase",
    "0 at rest; while the CA changes: 1 both are published, 2 certificates of the new one are served.",
    registry=REGISTRY,
)
CERTIFICATE_FAILURES = Counter(
    "velda_certificate_failures_total",
    "Attempts to renew, serve or publish the certificate that failed.",
    registry=REGISTRY,
)

TRACE_RECORDS = Counter(
    "velda_trace_records_total",
    "Records for traces, by what became of them (written, dropped: too many at once, failed: could not be written).",
    ["result"],
    registry=REGISTRY,
)


def text() -> str:
    """All of it in Prometheus' text format."""
    return generate_latest(REGISTRY).decode() + POOLS.text()
