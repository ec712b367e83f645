"""The chart's values, from the comments in chart/values.yaml and the types in values.schema.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from crd.reference.tables import HEADER, Schema, code, kind, resolve, table

CHART = Path(__file__).parents[2] / "chart"
INTRODUCTION = """\
# Values of the chart

`helm install … --set KEY=VALUE`, or a file with `--values FILE`. An unknown key, or a wrong type, stops helm before it
installs.

"""


class Value(NamedTuple):
    """A key of values.yaml; ``inside`` are those below it, and only without any does ``default`` count."""

    path: str
    words: str
    default: object
    inside: list[Value]


def page() -> str:
    """The page's text."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = read((CHART / "values.yaml").read_text(encoding="utf-8"))
    plain, sections = [each for each in values if not each.inside], [each for each in values if each.inside]
    return "".join(
        [
            f"{HEADER}{INTRODUCTION}## Plain values\n\n",
            _table(plain, schema),
            *(f"## {each.path}\n\n{each.words}\n\n{_table(each.inside, schema)}" for each in sections),
        ]
    )


def read(text: str) -> list[Value]:
    """All values of the file, each with the comment above it."""
    return list(_values(yaml.compose(text), text.splitlines(), ""))


def _values(mapping: Any, lines: list[str], prefix: str) -> Iterator[Value]:
    for key, node in mapping.value:
        path = f"{prefix}{key.value}"
        inside = list(_values(node, lines, f"{path}.")) if isinstance(node, yaml.MappingNode) else []
        yield Value(path, _above(lines, key.start_mark.line), yaml.safe_load(yaml.serialize(node)), inside)


def _above(lines: list[str], line: int) -> str:
    """The comment that ends above a line, as one text."""
    words: list[str] = []
    while line and (above := lines[line - 1].strip()).startswith("#"):
        words.insert(0, above.removeprefix("#").strip())
        line -= 1
    return " ".join(words)


def _table(values: list[Value], schema: Schema) -> str:
    return table(["Key", "Type", "Default", "What it is"], _rows(values, schema))


def _rows(values: list[Value], schema: Schema) -> Iterator[list[str]]:
    for value in values:
        default = "" if value.inside else code(value.default)
        yield [code(value.path), "" if value.inside else _kind(value.path, schema), default, value.words]
        yield from _rows(value.inside, schema)


def _kind(path: str, schema: Schema) -> str:
    found = schema
    for part in path.split("."):
        found = resolve(found.get("properties", {}).get(part, {}), schema["$defs"])
    return kind(found, schema["$defs"])
