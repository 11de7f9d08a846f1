"""Debian's chromium without a window, for what is measured, drawn and tested of the pages."""

from __future__ import annotations

import base64
import shutil
from typing import TYPE_CHECKING

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or ""  # empty: not installed
DRIVER = shutil.which("chromedriver") or ""
PATIENCE_S = 60.0


def started(width: int, height: int) -> webdriver.Chrome:
    """Return a browser; needs Debian's packages chromium and chromium-driver."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for each in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{each}")
    options.add_argument(f"--window-size={width},{height}")
    return webdriver.Chrome(options=options, service=Service(DRIVER))


def sign_in(browser: webdriver.Chrome, link: str) -> None:
    """Open a link of `fedgate web link` and use it; return once the list of runs is there."""
    browser.get(link)
    browser.find_element(By.CSS_SELECTOR, "main button").click()
    WebDriverWait(browser, PATIENCE_S).until(lambda seen: seen.find_elements(By.ID, "going-on"))


def picture(browser: webdriver.Chrome, path: Path, height: int) -> None:
    """Save the upper part of what is shown, as PNG."""
    width = browser.execute_script("return document.documentElement.clientWidth")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = {"captureBeyondViewport": True, "clip": clip}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", shot)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(taken["data"]))
