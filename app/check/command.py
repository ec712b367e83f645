"""``velda-apiserver check FILE…``: what the webhook and the API server would say of AgentPools, without either."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from app.check.files import load, sources
from app.check.manifest import check
from app.check.report import Note, Report, as_json, as_sarif, lines
from app.core.words import printable
from app.obs.progress import progressing

Output = Literal["text", "json", "sarif"]

GOOD, BAD, FAILED = 0, 1, 2
LINE = 1000
"""Characters of a line that is printed for people."""


def run(names: Sequence[str], *, output: Output) -> int:
    """Check the files and print what was found; the exit code."""
    report = _check_all(sources(names))
    if output == "text":
        for line in lines(report):
            _print(printable(line, limit=LINE))
    else:
        _print(as_sarif(report) if output == "sarif" else as_json(report))
    for note in report.skipped:
        _tell(f"{note.file}: skipped: {note.why}")
    for note in report.failed:
        _tell(f"{note.file}: {note.why}")
    _tell(report.summary)
    if report.failed:
        return FAILED
    return BAD if report.count("error") else GOOD


def _check_all(names: Sequence[str]) -> Report:
    report = Report()
    for name in progressing(names, "Checking"):
        source = load(name)
        if source.failed:
            report.failed.append(Note(source.name, source.failed))
        elif source.skipped:
            report.skipped.append(Note(source.name, source.skipped))
        else:
            found = check(source.text)
            report.files += 1
            report.pools += found.pools
            report.problems += [(source.name, problem) for problem in found.problems]
    return report


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _tell(text: str) -> None:
    print(f"velda-apiserver check: {printable(text, limit=LINE)}", file=sys.stderr, flush=True)  # noqa: T201
