"""The commands of the documentation, as they stand in its pages."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.support.running import CHECKOUT

DOCS = CHECKOUT / "docs"
README = CHECKOUT / "README.md"
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHELL = ("bash", "sh", "shell", "console")
_NUMBERS = re.compile(r"(?:\d+[smhd])+|\d+")


class Block(NamedTuple):
    """Commands, and the output that the page shows right below them, if any."""

    line: int
    commands: str
    output: str


def pages() -> dict[str, str]:
    """The text of each page, by its name below docs/, and of the README."""
    found = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
    return {name: path.read_text(encoding="utf-8") for name, path in {**found, "README.md": README}.items()}


def blocks(text: str) -> list[Block]:
    """Every block that is marked as a shell's, with the block of text that follows it at once."""
    found: list[Block] = []
    end = 0
    for match in _FENCED.finditer(text):
        indent, language, body = match.groups()
        body = "\n".join(line.removeprefix(indent) for line in body.splitlines())
        if language in SHELL:
            found.append(Block(text[: match.start()].count("\n") + 1, body, ""))
        elif language == "text" and found and not text[end : match.start()].strip():
            found[-1] = found[-1]._replace(output=body)
        end = match.end()
    return found


def languages(text: str) -> list[str]:
    """What the blocks are marked as; empty for one that is not."""
    return [match[2] for match in _FENCED.finditer(text)]


def commands(block: Block) -> list[str]:
    """Its commands: a line each, with the lines that it goes on in."""
    joined = re.sub(r"\s*\\\n\s*", " ", block.commands)
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def alike(text: str) -> set[str]:
    """Its lines, without what differs from one run to the next: numbers, ages and the width of columns."""
    return {" ".join(_NUMBERS.sub("0", line).split()) for line in text.splitlines() if line.strip()}


def examples(text: str) -> list[str]:
    """Every block of YAML."""
    return [match[3] for match in _FENCED.finditer(text) if match[2] == "yaml"]
