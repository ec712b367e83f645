"""The commands of docs/install.md, as they stand there."""

from __future__ import annotations

import re

from tests.docs.blocks import blocks, commands, pages


def documented(section: str) -> list[list[str]]:
    """The commands of each shell block below the heading ``section``."""
    found = re.search(rf"^## {re.escape(section)}$(.*?)(?=^## |\Z)", pages()["install.md"], re.MULTILINE | re.DOTALL)
    assert found, f"docs/install.md has no section {section}"
    return [commands(block) for block in blocks(found[1])]


def all_documented() -> list[str]:
    """Every command of the page."""
    return [command for block in blocks(pages()["install.md"]) for command in commands(block)]
