"""How problems are told: lines for people and editors, JSON for programs, SARIF 2.1.0 for code hosts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple
from urllib.parse import quote

from app import __version__
from app.check.manifest import Problem

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
RULES = {
    "YamlSyntax": "The file cannot be read as YAML, or not as JSON.",
    "FieldValueRequired": "A field is missing.",
    "FieldValueInvalid": "A field has a value that it must not have.",
    "FieldValueTypeInvalid": "A field has a value of another type.",
    "FieldValueNotSupported": "A field has a value that is none of those it may have.",
    "FieldValueDuplicate": "Two items of a list are the same.",
    "UnknownField": "A field is unknown.",
    "Advice": "It is allowed and probably not meant.",
}


class Note(NamedTuple):
    """A file that was not checked, and why."""

    file: str
    why: str


@dataclass(kw_only=True)
class Report:
    """What was found in all files."""

    files: int = 0
    pools: int = 0
    problems: list[tuple[str, Problem]] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    failed: list[Note] = field(default_factory=list)

    def count(self, severity: str) -> int:
        return sum(problem.severity == severity for _, problem in self.problems)

    @property
    def summary(self) -> str:
        numbers = (
            _counted(self.pools, "AgentPool"),
            _counted(self.files, "file"),
            _counted(self.count("error"), "error"),
            _counted(self.count("warning"), "warning"),
        )
        return "{} in {}: {}, {}".format(*numbers)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def lines(report: Report) -> Iterable[str]:
    """``FILE:LINE:COLUMN: error: FIELD: MESSAGE``, as compilers do it."""
    for file, problem in report.problems:
        where = f"{file}:{problem.place.line}:{problem.place.column}"
        pool = f" ({problem.pool})" if problem.pool else ""
        yield f"{where}: {problem.severity}: {problem.field}{': ' if problem.field else ''}{problem.message}{pool}"


def as_json(report: Report) -> str:
    problems = [
        {
            "file": file,
            "line": problem.place.line,
            "column": problem.place.column,
            "endLine": problem.place.end_line,
            "endColumn": problem.place.end_column,
            "severity": problem.severity,
            "rule": problem.rule,
            "pool": problem.pool,
            "field": problem.field,
            "message": problem.message,
        }
        for file, problem in report.problems
    ]
    return json.dumps(
        {
            "files": report.files,
            "pools": report.pools,
            "errors": report.count("error"),
            "warnings": report.count("warning"),
            "problems": problems,
            "skipped": [note._asdict() for note in report.skipped],
            "failed": [note._asdict() for note in report.failed],
        },
        indent=2,
    )


def as_sarif(report: Report) -> str:
    """One run of one tool; files that were not checked are notifications of its invocation."""
    used = [rule for rule in RULES if any(problem.rule == rule for _, problem in report.problems)]
    rules = [{"id": rule, "shortDescription": {"text": RULES[rule]}} for rule in used]
    told = [("note", note) for note in report.skipped] + [("error", note) for note in report.failed]
    run = {
        "tool": {"driver": {"name": "velda-apiserver check", "version": __version__, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": not report.failed,
                "toolExecutionNotifications": [
                    {"level": level, "message": {"text": note.why}, "locations": [_file(note.file)]}
                    for level, note in told
                ],
            }
        ],
        "results": [_result(file, problem, used) for file, problem in report.problems],
    }
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _result(file: str, problem: Problem, rules: Sequence[str]) -> dict[str, Any]:
    at, location = problem.place, _file(file)
    location["physicalLocation"]["region"] = {
        "startLine": at.line,
        "startColumn": at.column,
        "endLine": at.end_line,
        "endColumn": at.end_column,
    }
    if problem.pool:
        location["logicalLocations"] = [{"fullyQualifiedName": problem.pool, "kind": "object"}]
    text = f"{problem.field}: {problem.message}" if problem.field else problem.message
    return {
        "ruleId": problem.rule,
        "ruleIndex": rules.index(problem.rule),
        "level": problem.severity,
        "message": {"text": text},
        "locations": [location],
    }


def _file(name: str) -> dict[str, Any]:
    """By a URI that is relative where the name is: code hosts take it from the repository's root."""
    path = PurePath(name)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix())
    return {"physicalLocation": {"artifactLocation": {"uri": uri}}}
