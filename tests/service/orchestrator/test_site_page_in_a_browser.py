"""The gateway's own page in a real browser, as the site's people meet it."""

from __future__ import annotations

import asyncio

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from common.tls import Role
from gateway.policy import Policy
from tests.at_work import SITE, plan_for, settings
from tests.browser import NEEDED, browser, click, looked_at, severe, until_shown, without_script
from tests.fakes import until
from tests.site_page import LABELS, site_at_work
from tests.tiny_task import TASK

__all__ = ["browser"]
pytestmark = NEEDED
VIEWS = ("/", "/switch", "/sign-in", "/nowhere")


@pytest.fixture
async def site(federation, browser, tmp_path):
    """The page of a site that has taken part in a run; somebody has signed in."""
    files = federation.authority.issue(Role.GATEWAY, SITE)
    policy = Policy(epsilon_budget=8.0)
    config = settings(tmp_path / "site", files, LABELS).model_copy(update={"policy": policy})
    plan, initial = plan_for(TASK, LABELS, units=60, rounds={"count": 2, "maximum": 2})
    async with federation.serving():
        operator = await federation.start(plan, initial=initial)
        async with site_at_work(federation.address, files, config) as page:
            await until(operator, lambda s: s.has_ended)
            await asyncio.to_thread(_sign_in, browser, page.link())
            yield page
            browser.get("about:blank")  # nothing is followed any more when the server drains


def _sign_in(browser: WebDriver, link: str) -> None:
    browser.get(link)
    browser.find_element(By.CSS_SELECTOR, "main button").click()
    until_shown(browser, lambda: browser.find_elements(By.ID, "ledger"))


@pytest.mark.parametrize(("scheme", "width"), [("light", "wide"), ("dark", "phone")])
async def test_axe_finds_nothing_serious_and_nothing_sticks_out(site, browser, scheme, width):
    found = await asyncio.to_thread(looked_at, browser, site.url, VIEWS, scheme, width)
    assert found == {path: ([], True) for path in VIEWS}


async def test_a_site_is_paused_by_two_clicks_and_the_page_follows(site, browser):
    severe(browser)  # what other tests have asked for
    await asyncio.to_thread(_turn, browser)
    assert site.pause.is_on
    site.pause.turn_off()
    word = lambda: browser.find_element(By.CSS_SELECTOR, "#state .state").text  # noqa: E731
    await asyncio.to_thread(until_shown, browser, lambda: word() == "taking part")
    assert severe(browser) == []


def _turn(browser: WebDriver) -> None:
    click(browser, "#state .button")
    click(browser, "button.danger")
    until_shown(browser, lambda: "Paused since" in browser.find_element(By.ID, "state").text)


async def test_without_javascript_the_same_is_there_and_it_is_loaded_again(site, browser):
    text, refreshes = await asyncio.to_thread(without_script, browser, site.url)
    assert all(each in text for each in ("accepted", "olga", "of a budget of 8", "load it again"))
    assert refreshes == "5"
