"""A real browser for tests: Debian's chromium, without a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from axe_core_python.selenium import Axe
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks.browser import CHROMIUM, DRIVER, started

PATIENCE_S = 20.0
PHONE = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
NEEDED = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs Debian's packages chromium and chromium-driver",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    with started(1280, 1000) as opened:
        yield opened


def until_shown(browser: WebDriver, condition: Callable[[], object]) -> None:
    gone = [StaleElementReferenceException]  # a part was replaced while it was looked at
    WebDriverWait(browser, PATIENCE_S, 0.05, gone).until(lambda _: condition())


def click(browser: WebDriver, selector: str) -> None:
    """Click what may be replaced between its being found and the click."""

    def is_clicked() -> bool:
        browser.find_element(By.CSS_SELECTOR, selector).click()
        return True

    until_shown(browser, is_clicked)


def severe(browser: WebDriver) -> list[str]:
    return [each["message"] for each in browser.get_log("browser") if each["level"] == "SEVERE"]


def looked_at(
    browser: WebDriver, url: str, paths: tuple[str, ...], scheme: str, width: str
) -> dict[str, tuple[list[str], bool]]:
    """Return for each page what axe finds, and whether it is as wide as the window."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    if width == "phone":
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    found = {}
    for path in paths:
        browser.get(f"{url}{path}")
        bad = [each["id"] for each in Axe().run(browser)["violations"]]
        fits = "return document.documentElement.scrollWidth <= window.innerWidth"
        found[path] = (bad, browser.execute_script(fits))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    return found


def without_script(browser: WebDriver, page: str) -> tuple[str, str | None]:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page)
        text = browser.find_element(By.TAG_NAME, "body").text
        refresh = browser.find_element(By.CSS_SELECTOR, "meta[http-equiv=refresh]")
        return text, refresh.get_attribute("content")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
