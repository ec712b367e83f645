"""What the process measures, in Prometheus' conventions. One registry, so that a test can read it alone."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

LEADING = Gauge("velda_leader", "1 while this replica leads.", registry=REGISTRY)

API_REQUESTS = Counter(
    "velda_api_requests_total",
    "Requests to the Kubernetes API, by method and HTTP code (0: no answer).",
    ["method", "code"],
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

PODS_CREATED = Counter(
    "velda_pods_created_total",
    "Worker pods created, by result (ok, refused).",
    ["namespace", "result"],
    registry=REGISTRY,
)
PODS_DELETED = Counter("velda_pods_deleted_total", "Worker pods deleted.", ["namespace"], registry=REGISTRY)

SESSIONS_REQUESTED = Counter(
    "velda_sessions_requested_total", "New sessions that clients requested.", ["namespace"], registry=REGISTRY
)
SESSIONS_STARTED = Counter(
    "velda_sessions_started_total", "Sessions that an agent has started.", ["namespace"], registry=REGISTRY
)
SESSION_STARTS_FAILED = Counter(
    "velda_session_starts_failed_total",
    "Starts that an agent refused or did not answer; another agent is asked then.",
    ["namespace"],
    registry=REGISTRY,
)
SESSION_QUEUE_SECONDS = Histogram(
    "velda_session_queue_seconds",
    "Time from a session's request until an agent is asked to start it.",
    buckets=(0.001, 0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800),
    registry=REGISTRY,
)
SESSION_START_SECONDS = Histogram(
    "velda_session_start_seconds",
    "Time from a session's request until it runs.",
    buckets=(0.001, 0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800),
    registry=REGISTRY,
)
BROKER_REFUSALS = Counter(
    "velda_broker_refusals_total", "Requests and streams ended with an error, by reason.", ["reason"], registry=REGISTRY
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
