"""docs/THREATS.md and docs/reliability.md name tests: each of them is there, and no claim is without one."""

from __future__ import annotations

import re

import pytest

from tests.faults.scenarios import LARGE, SCENARIOS
from tests.support.running import CHECKOUT

TEXTS = {name: (CHECKOUT / "docs" / name).read_text(encoding="utf-8") for name in ("THREATS.md", "reliability.md")}
NAMED = sorted({named for text in TEXTS.values() for named in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)})
HEADINGS = ("| wants", "| promise", "| fault", "| figure")


@pytest.mark.parametrize(("name", "at_least"), [("THREATS.md", 30), ("reliability.md", 30)])
def test_claims_are_shown_by_tests(name: str, at_least: int) -> None:
    text = TEXTS[name]
    assert len(set(re.findall(r"`tests/[\w/]+\.py::\w+`", text))) > at_least
    claims = text.partition("## Figures")[0].partition("## Faults")[0].splitlines()
    rows = [line for line in claims if line.startswith("| ") and not line.startswith(HEADINGS)]
    assert [row for row in rows if "`tests/" not in row and not row.endswith("| — |")] == []


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part.removeprefix("tests/"))
def test_the_test_exists(file: str, name: str) -> None:
    text = (CHECKOUT / file).read_text(encoding="utf-8")
    assert re.search(rf"^((async )?def {name}\(|{name} = )", text, re.MULTILINE)


def test_every_fault_is_told() -> None:
    table = TEXTS["reliability.md"].partition("## Faults")[2]
    assert set(re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)) >= {*SCENARIOS, *LARGE}
