"""``velda-apiserver replay``: the table, JSON and the plot, and what is said of files that are no trace."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from rich.text import Text

from app.core.trace import (
    VERSION,
    AgentAsked,
    AgentJoined,
    AgentRemoved,
    Header,
    LimitsSet,
    Record,
    SessionEnded,
    SessionRequested,
    SessionStarted,
    encode,
)
from app.model.agentpool import Autoscaler
from app.model.meta import NamespacedName
from app.replay import run

T = 1_800_000_000.0
POOL = NamespacedName("n", "p")
TRACE: list[Record] = [
    Header(T, POOL, VERSION),
    LimitsSet(T, Autoscaler(max_replicas=5, min_idle=0, max_idle=0)),
    SessionRequested(T + 1000, "s"),
    AgentAsked(T + 1000, "a"),
    AgentJoined(T + 1020, "a", slots=1),
    SessionStarted(T + 1020, "s", agent="a"),
    SessionEnded(T + 1120, "s"),
    AgentRemoved(T + 1120, "a"),
    LimitsSet(T + 3600, Autoscaler(max_replicas=5, min_idle=0, max_idle=1)),
]


def write(path: Path, *records: Record) -> Path:
    path.write_bytes(b"".join(map(encode, records)))
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write(tmp_path / "n_p.jsonl", *TRACE)


def printed(*paths: Path, **options: Any) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    code = run(paths, **({"numbers": {}} | options), console=console)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def rows(text: str) -> dict[str, list[str]]:
    lines = (line.strip("│").split("│") for line in text.splitlines() if line.startswith("│"))
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_the_table_compares_recorded_replayed_and_alternatives(trace: Path) -> None:
    code, text = printed(trace, numbers={"min_idle": [1, 2], "max_idle": [2], "max_replicas": []})
    assert code == 0
    assert "n/p: 1.00 hours from 2027-01-15 08:00:00 UTC" in text
    assert "recorded ┃ replayed ┃" in text
    table = rows(text)
    # minIdle 1: one joins at 20 and runs from 1000 to 1120, another joins at 1020, and after idleDecaySecond one goes.
    one = (1000 - 20) + (3600 - 1020) + (1180 - 1120)
    # minIdle 2: two join at 20, a third at 1020; at 1120 three are more than maxIdle, and one goes at once.
    two = 2 * (1000 - 20) + (3600 - 1000) + (3600 - 1020)
    spent = [0, 0, one, two]
    assert table["idle agent-hours"] == [f"{seconds / 3600:.2f}" for seconds in spent]
    assert table["started at once"] == ["0.00%", "0.00%", "100.00%", "100.00%"]
    assert table["seconds waited"] == ["20.0", "20.0", "0.0", "0.0"]
    assert table["most agents"] == ["1", "1", "2", "3"]


@pytest.mark.parametrize("colours", [False, True])
def test_the_terminal_plot_tells_lines_apart(trace: Path, monkeypatch: pytest.MonkeyPatch, colours: bool) -> None:
    """The switches of a terminal, as rich and plotille know them."""
    monkeypatch.delenv("NO_COLOR" if colours else "FORCE_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR" if colours else "NO_COLOR", "1")
    text = drawn(trace)
    assert "(idle slots)" in text
    assert "(sessions waiting)" in text
    assert "(hours)" in text
    if colours:
        assert text.count("\x1b[38;2;214;39;40m") > 2
        assert any("\u2801" <= letter <= "\u28ff" for letter in text)
    else:
        assert "c⠤ min-idle 1 max-idle 2" in text
        assert "cccccccccc" in text
        assert "\x1b[38" not in text
        assert max(map(len, Text.from_ansi(text).plain.splitlines())) <= 100


def drawn(trace: Path) -> str:
    file = io.StringIO()
    console = Console(file=file, width=100, color_system="truecolor")
    assert run([trace], numbers={"min_idle": [1], "max_idle": [2]}, console=console) == 0
    return file.getvalue()


def test_json_has_all(trace: Path) -> None:
    code, text = printed(trace, numbers={"min_idle": [1], "max_idle": [1]}, as_json=True)
    report = msgspec.json.decode(text)
    assert code == 0
    assert (report["pool"], report["began"], report["seconds"]) == ("n/p", "2027-01-15T08:00:00Z", 3600.0)
    assert [variant["numbers"] for variant in report["variants"]] == [{}, {}, {"min_idle": 1, "max_idle": 1}]
    was, again, other = (variant["result"] for variant in report["variants"])
    assert was == again
    assert (was["waits"]["total"], other["waits"]["total"]) == (20.0, 0.0)
    assert len(other["series"]) == 240


def test_the_plot_as_svg(trace: Path, tmp_path: Path) -> None:
    code, _ = printed(trace, numbers={"min_idle": [1], "max_idle": [2]}, plot=tmp_path / "plot.svg")
    assert code == 0
    drawn = ET.parse(tmp_path / "plot.svg").getroot()
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"idle slots", "sessions waiting", "agents", "recorded", "min-idle 1 max-idle 2"} <= texts
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}path"))) == 4 * 3


def test_files_of_one_pool_in_any_order(tmp_path: Path) -> None:
    first = write(tmp_path / "b", *TRACE[:6])
    second = write(tmp_path / "a", Header(T + 1050, POOL, VERSION), *TRACE[1:])
    whole = write(tmp_path / "whole", *TRACE)
    assert printed(second, first) == printed(whole)


def test_what_was_left_out_is_said(trace: Path) -> None:
    with trace.open("ab") as file:
        file.write(b'{"type": "agentMoved", "at": 1}\n{"type": "sess')
    code, text = printed(trace)
    assert code == 0
    assert "1 records of the type agentMoved" in text
    assert f"{trace}:11: " in text.replace("\n", "")


def test_an_empty_hour(tmp_path: Path) -> None:
    code, text = printed(write(tmp_path / "t", *TRACE[:2]))
    assert code == 0
    assert rows(text)["started at once"] == ["-", "-"]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"min_idle": [-1]}, "--min-idle must be at least 0"),
        ({"default_slots_per_agent": [0]}, "--default-slots-per-agent must be at least 1"),
        ({"min_idle": [5]}, "--max-idle 0 is below --min-idle 5"),
        ({"min_replicas": [9]}, "--max-replicas 5 is below --min-replicas 9"),
        ({"max_idle": [1, 2, 3], "max_replicas": [1, 2, 3]}, "9 combinations, and at most 8"),
    ],
)
def test_numbers_that_no_pool_may_have(
    trace: Path, capsys: pytest.CaptureFixture[str], numbers: dict[str, list[int]], message: str
) -> None:
    assert printed(trace, numbers=numbers) == (2, "")
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is no trace: it does not begin with a header"),
        (b"\x00\x01", "is no trace: it does not begin with a header (line 1: "),
        (encode(SessionEnded(T, "s")), "is no trace"),
        (encode(TRACE[0]), "does not say which limits held"),
    ],
)
def test_files_that_are_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    path = tmp_path / "t"
    if content is not None:
        path.write_bytes(content)
    assert printed(path) == (2, "")
    assert message in capsys.readouterr().err
