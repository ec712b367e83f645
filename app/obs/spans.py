"""OpenTelemetry spans of what the server does, for a collector, where ``tracing.endpoint`` names one.

Where it does not, a span costs a few tenths of a microsecond, and the SDK is not even loaded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Tracer

from app import __version__
from app.model.meta import NamespacedName
from app.settings import Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

SERVICE = "velda-apiserver"
EXPORT_SECONDS = 3
"""That the collector has to take a batch of spans; and those that are left when the process ends."""

Attributes = Mapping[str, str | int | NamespacedName]

_OFF = nullcontext(INVALID_SPAN)
_NOWHERE = nullcontext()


class _State:
    """``tracer`` is None while spans go nowhere."""

    tracer: Tracer | None = None


def span(
    name: str, attributes: Attributes, *, kind: SpanKind = SpanKind.INTERNAL, root: bool = False
) -> AbstractContextManager[Span]:
    """A span of the block, and the parent of all that begin in it, in tasks that it starts as well.

    ``root``: it is the first of a trace, wherever the task that it is in was started.
    """
    if (tracer := _State.tracer) is None:
        return _OFF
    parent = context.Context() if root else None
    return tracer.start_as_current_span(name, parent, kind=kind, attributes=_plain(attributes))


def here() -> context.Context | None:
    """What spans that belong to this place are to be begun under, should that be later and elsewhere."""
    return None if _State.tracer is None else context.get_current()


def under(place: context.Context | None) -> AbstractContextManager[object]:
    """Begin the block's spans there."""
    if place is None:
        return _NOWHERE
    return trace.use_span(trace.get_current_span(place), record_exception=False, set_status_on_exception=False)


def past(name: str, attributes: Attributes, *, parts: Mapping[str, float]) -> None:
    """A span that ends now, of parts that followed each other: name → seconds."""
    if (tracer := _State.tracer) is None:
        return
    end = time.time_ns()
    begun = end - int(sum(parts.values()) * 1e9)
    whole = tracer.start_span(name, context.Context(), start_time=begun, attributes=_plain(attributes))
    for part, seconds in parts.items():
        inner = tracer.start_span(part, trace.set_span_in_context(whole, context.Context()), start_time=begun)
        begun += int(seconds * 1e9)
        inner.end(begun)
    whole.end(end)


def _plain(attributes: Attributes) -> dict[str, str | int]:
    return {key: str(value) if isinstance(value, tuple) else value for key, value in attributes.items()}


@asynccontextmanager
async def exporting(settings: Tracing, *, instance: str) -> AsyncIterator[None]:
    """Send spans to the collector until the block ends; a collector that is not there costs nothing but its spans."""
    if not settings.endpoint:
        yield
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  a third of a
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415                       second to load

    secure = settings.endpoint.startswith("https://")
    exporter = OTLPSpanExporter(endpoint=settings.endpoint, insecure=not secure, timeout=EXPORT_SECONDS)
    processor = BatchSpanProcessor(exporter)
    begin(processor, ratio=settings.ratio, instance=instance)
    try:
        yield
    finally:
        _State.tracer = None
        await _end(processor, exporter)


def begin(processor: SpanProcessor, *, ratio: float, instance: str) -> None:
    """Hand spans to the processor, of so large a part of what begins without a parent."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415

    about = {"service.name": SERVICE, "service.version": __version__, "service.instance.id": instance}
    sampler = ParentBasedTraceIdRatio(ratio)
    provider = TracerProvider(sampler=sampler, resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    # Not the process' own provider: libraries of ours would send spans as well.
    _State.tracer = provider.get_tracer(SERVICE, __version__)


async def _end(processor: SpanProcessor, exporter: SpanExporter) -> None:
    """Send what is left; without an answer in time it is given up."""
    ending = asyncio.create_task(asyncio.to_thread(processor.shutdown))
    done, _ = await asyncio.wait({ending}, timeout=EXPORT_SECONDS)
    if not done:
        exporter.shutdown()
    await ending
