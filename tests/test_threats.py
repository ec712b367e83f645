"""docs/THREATS.md names tests: each of them is there."""

from __future__ import annotations

import re

import pytest

from tests.support.running import CHECKOUT

TEXT = (CHECKOUT / "docs" / "THREATS.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


def test_threats_are_shown_by_tests() -> None:
    assert len(NAMED) > 30
    claims = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| wants")]
    assert [line for line in claims if "`tests/" not in line and not line.endswith("| — |")] == []


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part.removeprefix("tests/"))
def test_the_test_exists(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (CHECKOUT / file).read_text(encoding="utf-8"), re.MULTILINE)
