"""The pages in a real Chromium: what they show, to whom, and that anybody can use them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, expect

from app.broker.access import Access
from app.model.meta import NamespacedName
from tests.broker.wire import agent
from tests.broker.world import CPU
from tests.dashboard.browser import Tab, opened
from tests.dashboard.scene import NOW, SHOWN, scene
from tests.dashboard.serving import Served, dashboard
from tests.dashboard.test_streams import TOKEN, Users

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = [NamespacedName(f"team-{index % 20:02}", f"pool-{index:04}") for index in range(1000)]


@asynccontextmanager
async def page(
    chromium: Browser, *keys: NamespacedName, access: Access | None = None
) -> AsyncIterator[tuple[Served, Tab]]:
    """What is left is a page that complains of nothing and asks nobody else."""
    async with dashboard(*keys, access=access) as served, opened(chromium, served.url) as tab:
        yield served, tab
        assert tab.complaints == []
        assert tab.others == []


async def names(tab: Tab) -> list[str]:
    return await tab.page.locator("tbody th").all_inner_texts()


async def tile(tab: Tab, label: str, value: str) -> None:
    await expect(tab.page.locator(".tile", has_text=label).locator(".figure")).to_have_text(value)


async def test_pools_at_a_glance_and_their_changes(chromium: Browser) -> None:
    async with page(chromium, CPU) as (served, tab):
        await tab.says("#connection", "Live")
        await tile(tab, "Idle", "2")
        served.put(CPU, state="failing", error="no quota left", idleReplicas=0, pendingReplicas=4, pendingSessions=11)
        await tile(tab, "Idle", "0")
        await tile(tab, "Sessions queued", "11")
        await tile(tab, "Need attention", "1")
        cells = await tab.page.locator("tbody td").all_inner_texts()
        assert [cell.strip() for cell in cells] == ["Failing", "5 / 20", "1", "0", "4", "11", "no quota left"]
        served.put(NamespacedName("web", "shell"))
        await tab.says("tbody", "web/shell")
        served.delete(CPU)
        await expect(tab.page.locator("tbody tr")).to_have_count(1)


async def test_without_pools_the_page_says_how_to_begin(chromium: Browser) -> None:
    async with page(chromium) as (served, tab):
        await tab.says(".empty", "There are no pools yet")
        served.put(CPU)
        await tab.says("tbody", "default/cpu")


async def test_one_pool_its_charts_agents_and_sessions(chromium: Browser) -> None:
    async with page(chromium, CPU) as (served, tab):
        await tab.page.click("text=default/cpu")
        await tab.says("h1", "default/cpu")
        assert await tab.page.title() == "default/cpu · Velda"
        await tab.says(".empty", "It has no agents now.")
        async with agent(served.plane, "agent-1"):
            await tab.says("tbody", "agent-1")
            await tab.says("tbody .badge", "Idle")
        await tab.says("tbody .badge", "Lost")
        served.put(CPU, runningReplicas=6)
        chart = tab.page.get_by_role("img", name="Agents in the last hour")
        await expect(chart).to_have_attribute(
            "aria-label",
            "Agents in the last hour, now and at most: "
            "Running 6, at most 6; Idle 2, at most 2; Pending 0, at most 0; Unknown 0, at most 0",
        )
        await tab.page.locator("summary").first.click()
        await expect(tab.page.locator("details[open] tbody tr")).to_have_count(12)
        served.delete(CPU)
        await tab.says("[role=alert]", 'There is no pool "default/cpu".')


async def test_a_thousand_pools_of_which_a_page_is_in_the_document(chromium: Browser) -> None:
    async with page(chromium, *MANY) as (served, tab):
        await tab.says(".range", "1\u201350 of 1,000")
        assert len(await names(tab)) == 50
        await tab.page.click("text=Next")
        await tab.says(".range", "51\u2013100 of 1,000")
        await tab.page.fill("#filter", "TEAM-07 pool-09")
        await tab.says(".matches", "5 pools match")
        assert await names(tab) == [f"team-07/pool-{index:04}" for index in range(907, 1000, 20)]
        served.put(MANY[907], state="stalled")
        await tab.page.select_option("#state", "trouble")
        await tab.says(".matches", "1 pool matches")
        assert await names(tab) == ["team-07/pool-0907"]
        await tab.page.reload()
        await tab.says(".matches", "1 pool matches")
        assert await tab.page.input_value("#filter") == "TEAM-07 pool-09"
        await tab.page.fill("#filter", "none")
        await tab.says(".empty", "No pool matches the filter.")


async def test_a_thousand_pools_that_all_change_at_once(chromium: Browser) -> None:
    async with page(chromium, *MANY) as (served, tab):
        await tile(tab, "Running", "1,000")
        for running in (2, 3, 9):
            for key in MANY:
                served.put(key, runningReplicas=running)
            await tile(tab, "Running", f"{running},000")
        await tab.page.fill("#filter", "pool-0999")
        await tab.says(".matches", "1 pool matches")
        assert await tab.page.locator("tbody tr").count() == 1


async def test_a_heading_sorts(chromium: Browser) -> None:
    async with page(chromium, CPU, *(NamespacedName("web", name) for name in ("a", "b"))) as (served, tab):
        served.put(CPU, pendingSessions=5)
        await tile(tab, "Sessions queued", "5")
        heading = tab.page.get_by_role("columnheader", name="Pool")
        await tab.page.get_by_role("button", name="Pool").click()
        await expect(heading).to_have_attribute("aria-sort", "ascending")
        assert await names(tab) == ["web/a", "web/b", "default/cpu"]
        await tab.page.get_by_role("button", name="Queue").click()
        await expect(heading).to_have_attribute("aria-sort", "none")
        assert await names(tab) == ["default/cpu", "web/a", "web/b"]


# Logging in.


async def test_the_token_is_asked_for_and_never_leaves_the_tab(chromium: Browser) -> None:
    users = Users(("list", ""), ("watch", ""))
    async with page(chromium, CPU, access=users) as (_, tab):
        await expect(tab.page.locator("#token")).to_be_focused()
        await tab.page.keyboard.press("Enter")
        await tab.says("[role=alert]", "Paste a token first.")
        await tab.page.fill("#token", f"  {TOKEN}\n")
        await tab.page.keyboard.press("Enter")
        await tab.says("tbody", "default/cpu")
        await tab.says("#who", "ada")
        await tab.page.reload()
        await tab.says("tbody", "default/cpu")
        assert not [request.url for request in tab.requests if TOKEN in request.url]
        assert await tab.page.evaluate("[document.cookie, Object.values(localStorage).join()]") == ["", ""]
        await tab.page.click("text=Log out")
        await tab.says("h1", "Log in")
        await tab.page.reload()
        await tab.says("h1", "Log in")
        assert await tab.page.evaluate("sessionStorage.length") == 0


async def test_a_token_that_ends_asks_for_another(chromium: Browser) -> None:
    users = Users(("list", ""))
    async with dashboard(CPU, access=users) as served, opened(chromium, served.url) as tab:
        await tab.page.fill("#token", "another")
        await tab.page.get_by_role("button", name="Log in").click()
        await tab.says("[role=alert]", "The server does not take this token")
        await tab.page.fill("#token", TOKEN)
        await tab.page.keyboard.press("Enter")
        await tab.says("tbody", "default/cpu")
        users.known = False
        await tab.says("[role=alert]", "The token has expired. Log in again.")


async def test_who_may_not_look_is_told(chromium: Browser) -> None:
    async with dashboard(CPU, access=Users()) as served, opened(chromium, served.url) as tab:
        await tab.page.fill("#token", TOKEN)
        await tab.page.keyboard.press("Enter")
        await tab.says("[role=alert]", 'User "ada" may not list agentpools.velda.io in all namespaces.')


async def test_a_lost_server_is_told_and_found_again(chromium: Browser) -> None:
    async with dashboard(CPU) as served, opened(chromium, served.url) as tab:
        await tab.says("#connection", "Live")
        leading, served.leading = served.leading, None
        await tab.says("#connection[data-state=lost]", "another replica leads")
        await tab.says("tbody", "default/cpu")  # what was known is still shown
        served.put(CPU, runningReplicas=8)
        served.leading = leading
        await tab.says("#connection", "Live")
        await tile(tab, "Running", "8")


# Everybody.


async def test_by_keyboard_alone(chromium: Browser) -> None:
    async with page(chromium, CPU, NamespacedName("web", "shell")) as (_, tab):
        await tab.says("tbody", "web/shell")
        seen = []
        for _ in range(20):
            await tab.page.keyboard.press("Tab")
            seen.append(
                await tab.page.evaluate(
                    "(document.activeElement.ariaLabel ?? document.activeElement.innerText"
                    " ?? '').trim() || document.activeElement.id"
                )
            )
            if "default/cpu" in seen[-1]:
                break
        assert [each for each in seen if each in ("filter", "Pool", "Queue")] == ["filter", "Pool", "Queue"]
        await tab.page.keyboard.press("Enter")
        await tab.says("h1", "default/cpu")
        await expect(tab.page.locator("h1")).to_be_focused()
        await tab.page.go_back()
        await tab.says("h1", "Pools")


async def test_the_focus_stays_where_it_is_while_rows_move(chromium: Browser) -> None:
    async with page(chromium, CPU, NamespacedName("web", "shell")) as (served, tab):
        link = tab.page.get_by_role("link", name="web/shell")
        await link.focus()
        served.put(NamespacedName("web", "shell"), state="stalled")
        await tab.says("tbody tr:first-child", "web/shell")
        await expect(link).to_be_focused()


async def test_the_skip_button_leads_past_the_bar(chromium: Browser) -> None:
    async with page(chromium, CPU) as (_, tab):
        await tab.says("tbody", "default/cpu")
        await tab.page.locator("#skip").focus()
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.locator("main")).to_be_focused()


@pytest.mark.parametrize("dark", [False, True])
async def test_light_and_dark_follow_the_system_until_one_is_chosen(chromium: Browser, dark: bool) -> None:
    async with dashboard(CPU) as served, opened(chromium, served.url, dark=dark) as tab:
        root, button = tab.page.locator("html"), tab.page.get_by_role("button", name="Dark theme")
        before, after = ("dark", "light") if dark else ("light", "dark")
        await expect(root).to_have_attribute("data-theme", before)
        await expect(button).to_have_attribute("aria-pressed", str(dark).lower())
        await button.click()
        await expect(root).to_have_attribute("data-theme", after)
        await tab.page.reload()
        await expect(root).to_have_attribute("data-theme", after)


@pytest.mark.parametrize(("dark", "rules"), [(False, ()), (True, ("color-contrast",))], ids=["light", "dark"])
async def test_axe_finds_nothing_that_keeps_anybody_out(chromium: Browser, dark: bool, rules: tuple[str, ...]) -> None:
    async with scene() as served, dashboard(CPU, access=Users()) as locked:
        for url, words in (
            (served.url, "gpu-a100"),
            (f"{served.url}/#/pools/{SHOWN.namespace}/{SHOWN.name}", "jupyter"),
            (f"{served.url}/#/pools/default/none", "There is no pool"),
            (locked.url, "How to get a token"),
        ):
            async with opened(chromium, url, dark=dark, at=NOW) as tab:
                await tab.says("main", words)
                assert await tab.violations(*rules) == []


async def test_a_narrow_window_has_no_sideways_scrolling(chromium: Browser) -> None:
    async with scene() as served, opened(chromium, served.url, width=390, height=800, at=NOW) as tab:
        for path in ("", f"#/pools/{SHOWN.namespace}/{SHOWN.name}"):
            await tab.page.goto(f"{served.url}/{path}")
            await tab.says("main", "gpu-a100")
            assert await tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_the_browser_lets_nothing_inline_run(chromium: Browser) -> None:
    async with dashboard(CPU) as served, opened(chromium, served.url) as tab:
        await tab.says("tbody", "default/cpu")
        await tab.page.evaluate("""() => {
            const script = document.createElement("script");
            try { script.textContent = "document.title = 'owned'"; } catch {}
            try { script.append("document.title = 'owned'"); document.body.append(script); } catch {}
            try { document.body.innerHTML = "<b>owned</b>"; } catch {}
        }""")
        assert "owned" not in await tab.page.title()
        await tab.says("tbody", "default/cpu")
        assert tab.complaints
