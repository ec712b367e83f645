"""The dashboard's files: what anybody gets, and what the browser is told about them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.dashboard.pages import SECURITY, STATIC
from tests.broker.world import CPU
from tests.dashboard.serving import dashboard
from tests.support.running import CHECKOUT

FILES = sorted(path.name for path in STATIC.iterdir() if path.name != "index.html")


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with dashboard(CPU) as served, served.http() as http:
        yield http


@pytest.mark.parametrize("path", ["/", *(f"/dashboard/{name}" for name in FILES)])
async def test_a_file_is_public_and_asked_about_each_time(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in SECURITY} == SECURITY
    assert answer.headers["cache-control"] == "no-cache"
    tag = answer.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        again = await http.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await http.get(path, headers={"If-None-Match": '"other"'})).content == answer.content
    head = await http.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(answer.content)))


def test_nothing_inline_and_nothing_of_others_is_allowed() -> None:
    policy = dict(part.split(" ", 1) for part in SECURITY["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types")} == {"'none'"}


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_no_file_names_another_host_or_makes_markup_of_text(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|style=", text)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/dashboard", 404),
        ("GET", "/dashboard/", 404),
        ("GET", "/dashboard/index.html", 404),
        ("GET", "/dashboard/../pages.py", 404),
        ("GET", "/dashboard/%2e%2e/pages.py", 404),
        ("POST", "/", 405),
        ("POST", "/dashboard/main.js", 404),
        ("POST", "/dashboard/pools", 405),
    ],
)
async def test_there_is_nothing_else(http: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    assert (await http.request(method, path)).status_code == status


def test_the_image_has_the_files() -> None:
    """The Dockerfile copies the package as a whole, and nothing keeps its files from the build."""
    assert "COPY app app" in (CHECKOUT / "Dockerfile").read_text().splitlines()
    ignored = (CHECKOUT / ".dockerignore").read_text().split()
    assert not {"**/*.js", "**/*.css", "**/*.html", "**/*.svg", "**/static"} & set(ignored)


def test_the_login_page_has_the_commands_of_the_documentation() -> None:
    """Which run in tests/docs/test_commands.py."""
    script = (STATIC / "login.js").read_text()
    listed = re.findall(r'^  (".*"),$', script[script.index("COMMANDS") : script.index("];")], re.MULTILINE)
    page = (CHECKOUT / "docs" / "dashboard.md").read_text()
    assert "\n".join(json.loads(line) for line in listed) in page
    assert len(listed) == 3
