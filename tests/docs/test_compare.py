"""docs/compare.md claims nothing of ours that no test shows."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import DOCS
from tests.support.running import CHECKOUT

TEXT = (DOCS / "compare.md").read_text(encoding="utf-8")
OURS = [row.split(" | ")[1] for row in TEXT.splitlines() if row.startswith("| ") and not row.startswith("| |")]
"""The cells of our own column."""
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


def test_every_claim_has_the_number_of_a_test() -> None:
    numbers = [re.fullmatch(r"yes \((\d+)\)", cell) for cell in OURS if not cell.startswith("no")]
    listed = re.findall(r"^(\d+)\. `tests/", TEXT, re.MULTILINE)
    assert len(listed) > 20
    assert [found and found[1] for found in numbers] == listed


def test_every_link_leads_somewhere() -> None:
    used = set(re.findall(r"\]\[([\w-]+)\]", TEXT))
    assert used == set(re.findall(r"^\[([\w-]+)\]: https://", TEXT, re.MULTILINE))


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part.removeprefix("tests/"))
def test_the_test_exists(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (CHECKOUT / file).read_text(encoding="utf-8"), re.MULTILINE)
