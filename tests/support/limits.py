"""What every test of a limit or a refusal sees: it is counted, and told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from app.obs import metrics


@contextmanager
def refused_by(name: str, *, told_in: Sequence[str] = ("error",)) -> Iterator[None]:
    """In the block a limit refuses once, and it is counted and told, in one of these fields of a log line."""

    def count() -> float:
        return metrics.REGISTRY.get_sample_value("velda_limit_refusals_total", {"limit": name}) or 0.0

    before = count()
    with structlog.testing.capture_logs() as logs:
        yield
    assert count() == before + 1
    assert [line for line in logs if any(f"(limits.{name}: " in line.get(field, "") for field in told_in)], logs


def refusals(reason: str) -> float:
    """How many callers the broker has refused for that reason."""
    return metrics.REGISTRY.get_sample_value("velda_broker_refusals_total", {"reason": reason}) or 0.0
