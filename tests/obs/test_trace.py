"""The writer of traces: each file stands alone, stays small, and no trouble of the disk reaches the caller."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from app.core.replaying.demand import demand
from app.core.replaying.history import history
from app.core.replaying.recorded import recorded
from app.core.trace import (
    AgentAsked,
    AgentJoined,
    Header,
    LimitsSet,
    Record,
    SessionEnded,
    SessionRequested,
    SessionStarted,
    decode,
)
from app.model.agentpool import Autoscaler
from app.model.meta import NamespacedName
from app.obs import trace
from app.obs.metrics import REGISTRY
from app.obs.trace import TraceWriter

POOL, OTHER = NamespacedName("n", "p"), NamespacedName("n", "p.1")
T = 1_800_000_000.0
LIMITS = LimitsSet(T, Autoscaler(max_replicas=5, min_idle=1, max_idle=2))


def read(path: Path) -> list[Record]:
    with path.open("rb") as lines:
        found = decode(lines)
    assert (found.unknown, found.bad) == ({}, [])
    return found.records


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("velda_trace_records_total", {"result": result}) or 0.0


def session(number: int) -> list[Record]:
    at, name = T + 10 * number, f"s{number}"
    return [SessionRequested(at, name), SessionStarted(at + 1, name, agent="a"), SessionEnded(at + 9, name)]


def test_a_file_for_each_pool(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "traces")
    for pool in (POOL, OTHER):
        writer.write(pool, LIMITS)
        writer.write(pool, AgentAsked(T + 1, "a"))
    before = counted("written")
    writer.flush()
    assert counted("written") == before + 4
    assert sorted(path.name for path in (tmp_path / "traces").iterdir()) == ["n_p.1.jsonl", "n_p.jsonl"]
    for pool in (POOL, OTHER):
        assert read(writer.path(pool)) == [Header(T, pool, 1), LIMITS, AgentAsked(T + 1, "a")]


def test_limits_that_are_as_they_were_are_left_out(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path)
    for at in (T, T + 1):
        writer.write(POOL, LimitsSet(at, LIMITS.limits))
        writer.flush()
    assert read(writer.path(POOL))[1:] == [LIMITS]


def test_a_full_file_is_replaced_by_one_that_begins_with_what_lives(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path, max_bytes=300, keep=2)
    alive: list[Record] = [
        LIMITS,
        AgentAsked(T, "a"),
        AgentJoined(T + 1, "a", slots=1),
        SessionRequested(T + 2, "alive"),
    ]
    for record in alive:
        writer.write(POOL, record)
    for number in range(10):
        for record in session(number):
            writer.write(POOL, record)
        writer.flush()
    files = [tmp_path / "n_p.jsonl.2", tmp_path / "n_p.jsonl.1", tmp_path / "n_p.jsonl"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    last = 0.0
    for path in files:
        header, *rest = read(path)
        assert isinstance(header, Header)
        assert header.at > last
        assert rest[:4] == alive
        assert len(rest[4:]) % 3 == 0
        last = rest[-1].at
    assert last == session(9)[-1].at


def test_all_files_of_a_pool_tell_what_one_would(tmp_path: Path) -> None:
    small, large = TraceWriter(tmp_path / "small", max_bytes=200, keep=99), TraceWriter(tmp_path / "large")
    records: list[Record] = [LIMITS, AgentAsked(T, "a"), AgentJoined(T + 1, "a", slots=1)]
    records += sorted((record for number in range(20) for record in session(number)), key=lambda record: record.at)
    for record in records:
        for writer in (small, large):
            writer.write(POOL, record)
            writer.flush()
    files = sorted((tmp_path / "small").iterdir(), key=lambda path: read(path)[0].at)
    assert len(files) > 5
    pieces, whole = history(record for path in files for record in read(path)), history(read(large.path(POOL)))
    assert demand(pieces) == demand(whole)
    assert recorded(pieces) == recorded(whole)


def test_a_later_process_goes_on_after_a_line_that_was_cut_short(tmp_path: Path) -> None:
    first = TraceWriter(tmp_path)
    first.write(POOL, LIMITS)
    first.close()
    with first.path(POOL).open("ab") as file:
        file.write(b'{"type": "sess')
    second = TraceWriter(tmp_path)
    second.write(POOL, AgentAsked(T + 9, "a"))
    second.close()
    with first.path(POOL).open("rb") as lines:
        found = decode(lines)
    assert found.records == [Header(T, POOL, 1), LIMITS, Header(T + 9, POOL, 1), AgentAsked(T + 9, "a")]
    assert [bad.number for bad in found.bad] == [3]


def test_a_file_that_somebody_took_away_begins_anew(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path)
    writer.write(POOL, LIMITS)
    writer.flush()
    writer.path(POOL).unlink()
    writer.write(POOL, AgentAsked(T + 9, "a"))
    writer.flush()
    assert read(writer.path(POOL)) == [Header(T + 9, POOL, 1), LIMITS, AgentAsked(T + 9, "a")]


def test_a_pool_of_the_name_of_a_forgotten_one_begins_anew(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path)
    writer.write(POOL, LIMITS)
    writer.write(POOL, AgentAsked(T, "a"))
    writer.forget(POOL)
    writer.flush()
    writer.write(POOL, LimitsSet(T + 9, LIMITS.limits))
    writer.flush()
    assert read(writer.path(POOL))[-2:] == [Header(T + 9, POOL, 1), LimitsSet(T + 9, LIMITS.limits)]


def test_a_disk_that_takes_nothing_is_told_once_and_made_up_for(tmp_path: Path) -> None:
    directory = tmp_path / "traces"
    directory.write_text("in the way")
    writer = TraceWriter(directory)
    before = counted("failed")
    with structlog.testing.capture_logs() as logs:
        for record in (LIMITS, AgentAsked(T + 1, "a"), AgentAsked(T + 2, "b")):
            writer.write(POOL, record)
            writer.write(OTHER, record)
            writer.flush()
    assert [entry["event"] for entry in logs] == ["trace not written"]
    assert counted("failed") == before + 6
    directory.unlink()
    writer.write(POOL, SessionRequested(T + 3, "s"))
    writer.flush()
    records = read(writer.path(POOL))
    assert records[0] == Header(T + 3, POOL, 1)
    assert records[-1] == SessionRequested(T + 3, "s")


def test_more_than_can_wait_is_dropped(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path, backlog=2)
    before = counted("dropped")
    for record in (LIMITS, AgentAsked(T, "a"), AgentAsked(T, "b")):
        writer.write(POOL, record)
    assert counted("dropped") == before + 1
    writer.close()
    assert len(read(writer.path(POOL))) == 3


def test_the_thread_writes_what_has_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "PERIOD", 0.001)
    writer = TraceWriter(tmp_path)
    writer.start()
    for record in (LIMITS, *(record for number in range(100) for record in session(number))):
        writer.write(POOL, record)
    writer.close()
    assert len(read(writer.path(POOL))) == 302
