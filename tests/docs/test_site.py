"""The documentation builds without a warning, and its pages ask nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS
from tests.support.running import CHECKOUT

FETCHED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
"""Attributes that a browser loads by itself; a link that somebody may click is none."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as ``make docs`` builds it: pages that are missing in the nav, broken links and anchors are errors."""
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", directory],
        cwd=CHECKOUT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


class _Fetches(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if FETCHED.get(tag) == name]


def _fetched(page: Path) -> Iterator[str]:
    parser = _Fetches()
    parser.feed(page.read_text(encoding="utf-8"))
    yield from parser.found


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    outside = [(page.name, url) for page in pages for url in _fetched(page) if re.match(r"(https?:)?//", url)]
    assert outside == []


def test_styles_load_nothing_from_elsewhere(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert styles
    found = [url for style in styles for url in re.findall(r"url\(['\"]?((?:https?:)?//[^)'\"]+)", style.read_text())]
    assert found == []


def test_no_page_has_a_diagram_that_a_script_from_elsewhere_would_draw() -> None:
    assert [page.name for page in DOCS.rglob("*.md") if "```mermaid" in page.read_text(encoding="utf-8")] == []


def test_pictures_have_words(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert "![](" not in page.read_text(encoding="utf-8"), page
    for picture in (DOCS / "images").glob("*.svg"):
        assert "<title" in picture.read_text(encoding="utf-8"), picture
