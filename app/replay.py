"""``velda-apiserver replay``: what a recorded pool spent and how long its sessions waited, beside other limits."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app import plots
from app.core.replaying.demand import demand
from app.core.replaying.history import TraceError, history
from app.core.replaying.outcome import Point, Result
from app.core.replaying.recorded import recorded
from app.core.replaying.replay import Limits, replay
from app.core.trace import Decoded, Header, decode
from app.obs.progress import progressing

USAGE_ERROR = 2
MOST = 8
"""Alternatives that a table and a plot can show."""
PLOT_WIDTH = 100


class Variant(msgspec.Struct, frozen=True, rename="camel"):
    """One column. ``numbers`` are the limits that were given in place of the recorded ones, by name."""

    name: str
    numbers: Mapping[str, int]
    result: Result


class Report(msgspec.Struct, frozen=True, rename="camel"):
    pool: str
    began: datetime
    seconds: float
    unknown_records: Mapping[str, int]
    """Records of types that this version does not know, by type."""
    bad_lines: Sequence[str]
    variants: Sequence[Variant]
    """As recorded; replayed with the recorded limits, which shows how near the replay comes; the alternatives."""


def run(
    paths: Sequence[Path],
    *,
    numbers: Mapping[str, Sequence[int]],
    as_json: bool = False,
    plot: Path | None = None,
    console: Console | None = None,
) -> int:
    """Compare and print; the exit code. ``numbers``: by the name of Autoscaler's field, each value to be tried."""
    console = console or Console()
    try:
        report = compare(paths, numbers)
        if plot:
            plot.write_text(plots.svg(charts(report)), encoding="utf-8")
    except (OSError, TraceError) as error:
        print(f"velda-apiserver replay: {error}", file=sys.stderr)  # noqa: T201
        return USAGE_ERROR
    if as_json:
        console.file.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    else:
        _print(report, console)
    return 0


def compare(paths: Sequence[Path], numbers: Mapping[str, Sequence[int]]) -> Report:
    """Read the files of one pool, in any order, and replay them. Raises OSError, TraceError."""
    files = [(path, _read(path)) for path in paths]
    files.sort(key=lambda file: file[1].records[0].at)
    told = history(itertools.chain.from_iterable(decoded.records for _, decoded in files))
    wanted = demand(told)
    variants = [Variant("recorded", {}, recorded(told)), Variant("replayed", {}, replay(wanted, told.limits))]
    variants += [
        Variant(_name(other), other, replay(wanted, limits_with(told.limits, other)))
        for other in progressing(_alternatives(numbers), "Replaying")
    ]
    unknown: dict[str, int] = {}
    for _, decoded in files:
        unknown |= {kind: unknown.get(kind, 0) + count for kind, count in decoded.unknown.items()}
    return Report(
        pool=str(told.pool),
        began=datetime.fromtimestamp(told.began, UTC),
        seconds=told.seconds,
        unknown_records=unknown,
        bad_lines=[f"{path}:{bad.number}: {bad.message}" for path, decoded in files for bad in decoded.bad],
        variants=variants,
    )


def limits_with(limits: Limits, numbers: Mapping[str, int]) -> Limits:
    """The limits with these numbers in place of their own, all the time. Raises TraceError if no pool may have them."""
    changed = [(at, msgspec.structs.replace(held, **numbers)) for at, held in limits]
    for _, held in changed:
        for upper, lower in (("max_replicas", "min_replicas"), ("max_idle", "min_idle")):
            if getattr(held, upper) < getattr(held, lower) and numbers.keys() & {upper, lower}:
                most, least = getattr(held, upper), getattr(held, lower)
                raise TraceError(f"{_option(upper)} {most} is below {_option(lower)} {least}: give both")
    return changed


def _read(path: Path) -> Decoded:
    with path.open("rb") as lines:
        decoded = decode(lines)
    if not decoded.records or not isinstance(decoded.records[0], Header):
        why = f" (line {decoded.bad[0].number}: {decoded.bad[0].message})" if decoded.bad else ""
        raise TraceError(f"{path} is no trace: it does not begin with a header{why}")
    return decoded


def _alternatives(numbers: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """Each combination of the given values."""
    given = {name: list(dict.fromkeys(values)) for name, values in numbers.items() if values}
    for name, values in given.items():
        least = 1 if name == "default_slots_per_agent" else 0
        if min(values) < least:
            raise TraceError(f"{_option(name)} must be at least {least}")
    combinations = [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]
    if len(combinations) > MOST:
        raise TraceError(f"these are {len(combinations)} combinations, and at most {MOST} can be compared")
    return combinations if given else []


def _name(numbers: Mapping[str, int]) -> str:
    return "\n".join(f"{_option(name)} {number}" for name, number in numbers.items())


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def charts(report: Report) -> list[plots.Chart]:
    """Over time: idle slots, waiting sessions, agents, running agents; a line for each variant."""
    shown: Mapping[str, str] = {
        "idle slots": "idle_slots",
        "sessions waiting": "queued_sessions",
        "agents": "agents",
        "running agents": "running_agents",
    }
    return [
        plots.Chart(title, tuple((_line(variant), _points(variant, field)) for variant in report.variants))
        for title, field in shown.items()
    ]


def _line(variant: Variant) -> str:
    return variant.name.replace("\n", " ").replace("--", "")


def _points(variant: Variant, field: str) -> list[tuple[float, float]]:
    series = variant.result.series or (Point(0.0, 0.0, 0.0, 0.0, 0),)
    return [(point.seconds / 3600, float(getattr(point, field))) for point in series]


def _print(report: Report, console: Console) -> None:
    console.print(_table(report))
    colours = console.color_system is not None and not console.no_color
    if report.variants[0].result.series:
        for chart in charts(report)[:2]:
            drawn = plots.text(chart, width=min(console.width, PLOT_WIDTH), colours=colours)
            console.print(Text.from_ansi(drawn), no_wrap=True, overflow="crop")
    for kind, count in report.unknown_records.items():
        console.print(f"{count} records of the type {kind}, which this version does not know, were left out")
    for bad in report.bad_lines:
        console.print(f"left out: {bad}", markup=False, highlight=False)


def _table(report: Report) -> Table:
    table = Table(title=f"{report.pool}: {report.seconds / 3600:.2f} hours from {report.began:%Y-%m-%d %H:%M:%S} UTC")
    table.add_column("")
    for variant in report.variants:
        table.add_column(variant.name, justify="right")
    for cells in zip(*(_cells(variant.result) for variant in report.variants), strict=True):
        table.add_row(cells[0][0], *(text for _, text in cells))
    return table


def _cells(result: Result) -> Iterator[tuple[str, str]]:
    """The rows of one column, each with its name."""
    waits = result.waits
    yield "idle agent-hours", f"{result.idle_agent_hours:.2f}"
    yield "idle slot-hours", f"{result.idle_slot_hours:.2f}"
    yield "running agent-hours", f"{result.running_agent_hours:.2f}"
    yield "pending agent-hours", f"{result.pending_agent_hours:.2f}"
    yield "sessions", str(result.sessions)
    yield "  started at once", "-" if result.hit_rate is None else f"{result.hit_rate:.2%}"
    yield "  cancelled", str(result.cancelled)
    yield "  waiting at the end", str(result.queued)
    yield "seconds waited", f"{waits.total:.1f}"
    for name, seconds in (("mean", waits.mean), ("p50", waits.p50), ("p95", waits.p95), ("p99", waits.p99)):
        yield f"  {name}", f"{seconds:.1f}"
    yield "  max", f"{waits.max:.1f}"
    yield "agents created", str(result.agents_created)
    yield "agents removed", str(result.agents_removed)
    yield "most agents", str(result.peak_agents)
