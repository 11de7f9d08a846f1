"""Takes the picture of the page in the README, of a demo as it goes.

python -m benchmarks.page_picture docs/images/page.png [--after 40]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks import browser

PATIENCE_S = 600.0
HEIGHT = 1180  # to below the chart


def main(
    path: Annotated[Path, typer.Argument(help="Where to write it, PNG.")],
    after: Annotated[int, typer.Option(help="Rounds that are published by then.")] = 40,
) -> None:
    """Start the demo, follow it, take the picture, stop the demo."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cli", "demo", "--out", f"{folder}/model"]
        demo = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603 - ours
        try:
            _take(_link(demo), path, after)
        finally:
            demo.terminate()
            demo.wait()


def _link(demo: subprocess.Popen[str]) -> str:
    for line in demo.stderr or ():
        if line.startswith("watch it: "):
            return line.removeprefix("watch it: ").strip()
    sys.exit("the demo ended before it had a page")


def _take(link: str, path: Path, after: int) -> None:
    with browser.started(1280, 1000) as following:
        browser.sign_in(following, link)
        waiting = WebDriverWait(following, PATIENCE_S)
        waiting.until(lambda seen: seen.find_elements(By.CSS_SELECTOR, "tbody a"))
        following.find_element(By.CSS_SELECTOR, "tbody a").click()
        waiting.until(lambda seen: _is_scored(seen.find_element(By.ID, "scores").text, after))
        browser.picture(following, path, HEIGHT)


def _is_scored(text: str, after: int) -> bool:
    """Whether the table of scores holds that round."""
    return any(line.startswith(f"{after} dev ") for line in text.splitlines())


if __name__ == "__main__":
    typer.run(main)
