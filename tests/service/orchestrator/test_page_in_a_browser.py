"""The page in a real browser, as people meet it: Debian's chromium, without a window."""

from __future__ import annotations

import asyncio
from time import time  # noqa: TID251 - the claim is about real seconds

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from common.tls import Role
from orchestrator.config import WebSettings
from tests.browser import NEEDED, browser, click, looked_at, severe, until_shown, without_script
from tests.page import REFUSING, RUN, SITES, answered, in_state, link_of, score, update, varied_plan

SOON_S = 1.0  # what is promised
NOTING = """
window.shownAt = 0;
const row = arguments[0];
document.addEventListener('fedgate:updated', () => {
  const place = document.querySelector(`#gw-${row} .place`);
  if (!window.shownAt && place.textContent === 'in') window.shownAt = Date.now();
});
"""

__all__ = ["browser"]
pytestmark = NEEDED


@pytest.fixture
async def watched(federation, browser):
    """Somebody has signed in, and a run is in its second round: one update of three is in."""
    web = WebSettings(address="127.0.0.1:0")
    federation.config = federation.config.model_copy(update={"web": web})
    async with federation.serving() as federation.server:
        plan = varied_plan(2)
        operator = await federation.start(plan, RUN)
        federation.gateways_of_run = await federation.gateways(*SITES, REFUSING)
        await answered(federation.gateways_of_run, plan)
        live = federation.server.orchestrator.runs.get(RUN)
        for each in federation.gateways_of_run[:4]:
            await update(each, live)
        await in_state(live, lambda run: run.published == 1 and run.round.number == 2)
        await operator.record_scores(RUN, score(1, live.run.weights, 0.6543))
        await update(federation.gateways_of_run[0], live)
        link = await link_of(federation, Role.OPERATOR, "olga")
        await asyncio.to_thread(_sign_in, browser, link)
        yield federation
        browser.get("about:blank")  # nothing is followed any more when the server drains


def _sign_in(browser: WebDriver, link: str) -> None:
    browser.get(link)
    browser.find_element(By.CSS_SELECTOR, "main button").click()
    until_shown(browser, lambda: browser.find_elements(By.ID, "going-on"))


def _follow(browser: WebDriver, federation) -> None:
    """Open the run's page; return once it follows what happens."""
    browser.get(f"{federation.server.page_url}/runs/{RUN}")
    note = browser.find_element(By.ID, "following")
    until_shown(browser, lambda: "follows" in note.text)


def _word(browser: WebDriver, site: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, f"#gw-{site} .place").text


async def test_what_happens_is_on_the_page_within_a_second_and_nothing_is_complained_of(
    watched, browser
):
    await asyncio.to_thread(_follow, browser, watched)
    took = [await _shown_s(watched, browser, site) for site in watched.gateways_of_run[1:4]]
    assert min(took) < SOON_S  # of three, as machines are busy with other tests
    assert severe(browser) == []


async def _shown_s(watched, browser: WebDriver, site) -> float:
    """Have a gateway send its update; return the seconds until its row says so, by one clock."""
    assert await asyncio.to_thread(_word, browser, site.name) == "away"
    await asyncio.to_thread(browser.execute_script, NOTING, site.name)
    begun = time()
    await update(site, watched.server.orchestrator.runs.get(RUN))
    shown_at = lambda: browser.execute_script("return window.shownAt")  # noqa: E731
    await asyncio.to_thread(until_shown, browser, shown_at)
    return await asyncio.to_thread(shown_at) / 1000 - begun


async def test_everything_is_reached_by_keyboard_in_the_order_of_the_page(watched, browser):
    await asyncio.to_thread(_follow, browser, watched)
    reached = await asyncio.to_thread(_tabbed_through, browser)
    assert reached[0] == "Skip to the content"
    wanted = ["Runs", "Sign out", "Cancel the run …", "gateways-title", "scores-caption"]
    places = [reached.index(each) for each in [*wanted, "rounds-caption", "values-caption"]]
    assert places == sorted(places)


def _tabbed_through(browser: WebDriver) -> list[str]:
    """Return what has the focus, one after the other, until it begins anew."""
    reached: list[str] = []
    for _ in range(40):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        now = browser.execute_script(
            "const at = document.activeElement;"
            "return at.getAttribute('aria-labelledby') || at.textContent.trim()"
        )
        if reached and now == reached[0]:
            return reached
        reached.append(now)
    raise AssertionError(f"the focus never comes back: {reached}")


async def test_focus_stays_where_it_is_while_the_page_changes(watched, browser):
    await asyncio.to_thread(_follow, browser, watched)
    at = "return document.activeElement.getAttribute('aria-labelledby')"
    focus = "document.querySelector('[aria-labelledby=scores-caption]').focus()"
    await asyncio.to_thread(browser.execute_script, focus)
    operator = await watched.operator()
    live = watched.server.orchestrator.runs.get(RUN)
    await operator.record_scores(RUN, score(1, live.run.weights, 0.7))
    scores = lambda: "70.0" in browser.find_element(By.ID, "scores").text  # noqa: E731
    await asyncio.to_thread(until_shown, browser, scores)
    assert await asyncio.to_thread(browser.execute_script, at) == "scores-caption"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["wide", "phone"])
async def test_axe_finds_nothing_serious_and_nothing_sticks_out(watched, browser, scheme, width):
    of_run = (f"/runs/{RUN}", f"/runs/{RUN}/rounds", f"/runs/{RUN}/cancel")
    paths = ("/", *of_run, "/start", "/sign-in")
    found = await asyncio.to_thread(
        looked_at, browser, watched.server.page_url, paths, scheme, width
    )
    assert found == {path: ([], True) for path in paths}


async def test_axe_finds_nothing_serious_in_the_audit_log(watched, browser):
    link = await link_of(watched, Role.AUDITOR, "ada")
    await asyncio.to_thread(_sign_in, browser, link)
    url = watched.server.page_url
    found = await asyncio.to_thread(looked_at, browser, url, ("/records",), "dark", "phone")
    assert found == {"/records": ([], True)}


async def test_without_javascript_the_same_is_there_and_it_is_loaded_again(watched, browser):
    page = f"{watched.server.page_url}/runs/{RUN}"
    text, refreshes = await asyncio.to_thread(without_script, browser, page)
    assert all(each in text for each in (*SITES, REFUSING, "65.4", "load it again"))
    assert refreshes == "5"


async def test_a_run_is_cancelled_by_two_clicks(watched, browser):
    await asyncio.to_thread(_follow, browser, watched)
    await asyncio.to_thread(_cancel, browser)
    assert watched.server.orchestrator.runs.get(RUN).run.has_ended


def _cancel(browser: WebDriver) -> None:
    click(browser, "#actions a")
    click(browser, "button.danger")
    until_shown(browser, lambda: "cancelled" in browser.find_element(By.ID, "announce").text)
