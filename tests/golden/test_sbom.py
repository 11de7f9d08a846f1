"""What `make sbom` writes of each image: every package of its lock, with every hash."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BILLS = ROOT / "dist" / "sbom"
LOCKS = {"orchestrator": ("orchestrator",), "gateway": ("gateway", "torch")}

pytestmark = [
    pytest.mark.skipif(not BILLS.exists(), reason="nothing is written yet: make sbom"),
    pytest.mark.parametrize("image", LOCKS),
]


def locked(image: str) -> dict[tuple[str, str], set[str]]:
    """Return the hashes of each (package, version) in an image's locks."""
    found: dict[tuple[str, str], set[str]] = {}
    for lock in LOCKS[image]:
        text = (ROOT / "requirements" / f"{lock}.txt").read_text().replace("\\\n", " ")
        for name, version, rest in re.findall(r"^([\w.-]+)==(\S+)(.*)$", text, re.MULTILINE):
            found[name, version] = set(re.findall(r"--hash=sha256:(\w{64})", rest))
    return found


def bill(image: str) -> dict:
    return json.loads((BILLS / f"{image}.cdx.json").read_text())


def test_it_lists_what_the_lock_lists_with_its_hashes(image):
    listed = {
        (part["name"], part["version"]): {
            each["content"]
            for reference in part["externalReferences"]
            for each in reference.get("hashes", ())
        }
        for part in bill(image)["components"]
    }
    assert listed == locked(image)
    assert all(hashes for (name, _), hashes in listed.items() if name != "torch")


def test_each_package_has_a_name_that_scanners_know(image):
    for part in bill(image)["components"]:
        assert part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}"


def test_it_says_in_which_form_and_of_what_it_is(image):
    said, project = bill(image), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    whole = said["metadata"]["component"]
    assert (whole["name"], whole["version"]) == (project["name"], project["version"])
