"""Spans of what the server does: which there are, whose children, and that a collector gets them."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from app.model.meta import NamespacedName
from app.obs import spans
from app.settings import Tracing
from tests.obs.collector import collecting

POOL = NamespacedName("ml", "gpu")


class Told:
    """What was told, as an exporter has it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        spans.begin(SimpleSpanProcessor(self._exporter), ratio=1.0, instance="a")

    def one(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self._exporter.get_finished_spans() if span.name == name)
        return found

    def parent(self, name: str) -> str | None:
        """The name of its parent."""
        over = self.one(name).parent
        names = {span.context.span_id: span.name for span in self._exporter.get_finished_spans() if span.context}
        return names[over.span_id] if over else None


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(spans._State, "tracer", None)
    return Told()


async def test_what_a_block_starts_is_its_child_but_a_root_is_nobodys(told: Told) -> None:
    async def work() -> None:
        with spans.span("GET", {"url.path": "/api"}, kind=SpanKind.CLIENT):
            pass
        with spans.span("next", {}, root=True):
            pass

    with spans.span("reconcile", {"velda.pool": POOL}) as span:
        span.set_attribute("velda.create", 2)
        task = asyncio.create_task(work())
    await task
    assert told.parent("GET") == "reconcile"
    assert told.parent("next") is None
    assert told.one("reconcile").attributes == {"velda.pool": "ml/gpu", "velda.create": 2}
    assert told.one("reconcile").resource.attributes["service.instance.id"] == "a"


async def test_what_belongs_to_an_earlier_place_is_told_there_and_its_failure_only_once(told: Told) -> None:
    with spans.span("reconcile", {}):
        place = spans.here()
    failing = pytest.raises(ValueError, match="no answer")
    with spans.span("another", {}), failing, spans.under(place), spans.span("POST", {}):
        raise ValueError("no answer")
    assert told.parent("POST") == "reconcile"
    assert not told.one("POST").status.is_ok
    assert told.one("reconcile").status.is_unset


async def test_a_session_is_told_when_it_runs_with_its_parts_one_after_the_other(told: Told) -> None:
    spans.past("session", {"velda.pool": POOL}, parts={"queue": 2.0, "start": 0.5})
    whole, queue, start = (told.one(name) for name in ("session", "queue", "start"))
    assert (told.parent("queue"), told.parent("start")) == ("session", "session")
    times = [whole.start_time, queue.start_time, queue.end_time, start.start_time, start.end_time, whole.end_time]
    seconds = [((each or 0) - (whole.end_time or 0)) / 1e9 for each in times]
    assert seconds == pytest.approx([-2.5, -2.5, -0.5, -0.5, 0.0, 0.0], abs=1e-6)


def test_without_a_collector_nothing_is_told_and_the_sdk_is_not_loaded() -> None:
    assert spans.here() is None
    with spans.span("reconcile", {"velda.pool": POOL}) as span, spans.under(None):
        span.set_attribute("velda.create", 2)
    spans.past("session", {}, parts={"queue": 1.0})
    code = "import sys, app.service; sys.exit('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_collector_gets_all_spans_the_last_ones_too() -> None:
    async with collecting() as collector:
        async with spans.exporting(Tracing(endpoint=collector.address), instance="a"):
            with spans.span("reconcile", {}), spans.span("GET", {}):
                pass
        assert sorted(collector.names) == ["GET", "reconcile"]
        async with spans.exporting(Tracing(endpoint=collector.address, ratio=0.0), instance="a"):
            with spans.span("left out", {}):
                pass
        assert "left out" not in collector.names


async def test_a_collector_that_does_not_answer_holds_nobody_up_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        async with spans.exporting(Tracing(endpoint=address), instance="a"):
            for _ in range(2000):
                with spans.span("reconcile", {}):
                    pass
            begun = time.monotonic()
        assert time.monotonic() - begun < 3 * spans.EXPORT_SECONDS
