"""A real server with real TLS, tokens and rights; agents that join it, and a browser that looks on."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser

from tests.client.serving import SESSION_USER, VIEWER, Place
from tests.dashboard.browser import Tab, opened
from tests.support.cluster import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Place:
    cluster.install_crd()
    return Place(cluster, tmp_path)


async def log_in(tab: Tab, token: str) -> None:
    await tab.page.fill("#token", token)
    await tab.page.keyboard.press("Enter")


@asynccontextmanager
async def session(place: Place, pool: str, token: str) -> AsyncIterator[None]:
    """One that runs until the block ends."""
    headers = {"Authorization": f"Bearer {token}"}
    named = {"sessionId": "the-session", "instanceId": "1"}
    verify = ssl.create_default_context(cafile=str(place.directory / "ca.crt"))
    async with httpx.AsyncClient(base_url=place.url, headers=headers, verify=verify, timeout=60) as http:
        answer = await http.post("/rest/broker/v1/session", json={**named, "pool": pool, "user": "ada"})
        assert answer.status_code == 200, answer.text
        yield
        await http.post("/rest/broker/v1/session/kill", json=named)


async def test_from_the_login_to_a_session_and_to_the_end_of_a_right(chromium: Browser, place: Place) -> None:
    viewer, user = place.user("viewer", VIEWER).read_text(), place.user("user", SESSION_USER).read_text()
    nobody = place.user("nobody", {}).read_text()
    pool = place.pool()
    async with place.server(), opened(chromium, place.url) as tab:
        await log_in(tab, nobody)
        await tab.says("[role=alert]", "may not list agentpools.velda.io in all namespaces")
        await tab.page.click("text=Log out")
        await log_in(tab, viewer)
        await tab.says("#who", f"system:serviceaccount:{place.namespace}:viewer")
        await tab.says("tbody", pool)
        place.pool("second")
        await tab.says("tbody", f"{place.namespace}/second")
        await tab.page.click(f"text={pool}")
        async with place.agent(pool), session(place, pool, user):
            await tab.says("tbody", "the-session")
            await tab.says("tbody .badge", "Running")
            await tab.says("tbody", "ada")
        place.cluster.kubectl("delete", "rolebinding", "viewer", f"--namespace={place.namespace}")
        await tab.says("[role=alert]", "may not watch agentpools.velda.io")
        assert tab.others == []
    log = place.log.read_text()
    assert "may not list agentpools.velda.io" in log
    assert not [token for token in (viewer, nobody) if token in log]
