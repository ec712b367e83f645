"""What the process measures, in Prometheus' conventions. One registry, so that a test can read it alone."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

LEADING = Gauge("velda_leader", "1 while this replica leads.", registry=REGISTRY)

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
