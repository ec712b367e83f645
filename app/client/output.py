"""What commands print: tables for people, protobuf's JSON for programs. Nothing that a server says moves the cursor."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNBOUNDED = 100_000
"""Columns of what is no terminal: programs want whole lines."""


def printable(text: str) -> str:
    """In one line, without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBOUNDED
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(printable(cell) or "-") for cell in row))
    console.print(table)


def print_json(message: Message, *, indent: int | None = 2) -> None:
    """Every field is there, also one that has its default."""
    print_line(json_format.MessageToJson(message, indent=indent, always_print_fields_with_no_presence=True))


def print_line(text: str) -> None:
    """At once: whoever reads a watch through a pipe waits for it."""
    print(text, flush=True)  # noqa: T201


def print_error(text: str) -> None:
    print(f"velda-apiserver: {text}", file=sys.stderr, flush=True)  # noqa: T201
