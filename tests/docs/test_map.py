"""CONTRIBUTING.md is the map of the code: what it names is there, and what is there is named."""

from __future__ import annotations

import re

from tests.support.running import CHECKOUT

TEXT = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAP = "\n".join(line for line in TEXT.splitlines() if line.startswith("| "))


def test_what_the_map_names_is_there() -> None:
    named = re.findall(r"`([\w./-]+(?:/|\.py|\.yml))`", MAP)
    assert len(named) > 30
    assert [path for path in named if "/" in path and not (CHECKOUT / path).exists()] == []


def test_every_package_is_on_the_map() -> None:
    packages = [*(CHECKOUT / "app").iterdir(), *CHECKOUT.iterdir()]
    here = [path.relative_to(CHECKOUT) for path in packages if (path / "__init__.py").exists()]
    assert len(here) > 10
    lacking = [path for path in here if f"`{path.as_posix()}/" not in MAP and path.name not in ("app", "tests")]
    assert lacking == []
