"""What the images are built from: all of the distribution, nothing else of the repository."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def distributed() -> set[str]:
    """Return the packages that the distribution consists of."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return {pattern.rstrip("*") for pattern in settings["packages"]["find"]["include"]}


def test_images_are_built_from_every_package_of_the_distribution():
    copied = re.findall(
        r"^COPY (\w+) \1$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE
    )
    assert set(copied) == distributed()


def test_builds_are_given_every_package_of_the_distribution_and_no_keys_or_state():
    given = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    files = {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "requirements",
        "setup.py",
        "wheels",
        "deploy/locked-pip",
    }
    assert given == distributed() | files
