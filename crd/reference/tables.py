"""Markdown of JSON schemas: one row a field."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]
HEADER = "<!-- Made by `make docs`; do not edit. -->\n"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table with an empty line after it."""
    lines = [list(columns)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "".join(f"| {' | '.join(_cell(text) for text in line)} |\n" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")


def code(value: Any) -> str:
    """As YAML's flow style has it."""
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def kind(schema: Schema, definitions: Schema) -> str:
    """What a value may be, in words."""
    schema = resolve(schema, definitions)
    if "enum" in schema or "const" in schema:
        return ", ".join(code(value) for value in schema.get("enum", [schema.get("const")]))
    if choices := schema.get("anyOf"):
        return " or ".join(kind(choice, definitions) for choice in choices if choice != {"type": "null"})
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}), definitions)}"
    types = schema.get("type", "")
    name = types if isinstance(types, str) else " or ".join(types)
    return ("true or false" if name == "boolean" else name) + _bounds(schema)


def resolve(schema: Schema, definitions: Schema) -> Schema:
    """What ``$ref`` names, a key of ``definitions``."""
    named: Schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else {}
    return {**named, **schema}


def _bounds(schema: Schema) -> str:
    """The bounds that somebody could run into: those of 32 bits are left out."""
    least = f"above {schema['minimum']:,}" if schema.get("exclusiveMinimum") is True else _least(schema)
    most = schema.get("maximum", 2**31 - 1)
    if most >= 2**31 - 1:
        return f", {least}" if least else ""
    limit = f"below {most:,}" if schema.get("exclusiveMaximum") is True else f"at most {most:,}"
    return ", ".join(["", *([least] if least else []), limit])


def _least(schema: Schema) -> str:
    if isinstance(above := schema.get("exclusiveMinimum"), int | float) and not isinstance(above, bool):
        return f"above {above:,}"
    return f"at least {schema['minimum']:,}" if "minimum" in schema else ""
