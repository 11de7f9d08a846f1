"""The extras that commands name, beside those of the distribution."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from common.extras import EXTRAS

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
PACKAGES = {"absl": "absl-py"}  # where it is not the module's name with hyphens


def brought_by(extra: str) -> set[str]:
    """Return the packages of an extra."""
    return {
        re.split(r"[\[<>= ]", need)[0] for need in PROJECT["optional-dependencies"].get(extra, ())
    }


@pytest.mark.parametrize("module", sorted(EXTRAS))
def test_the_extra_that_a_command_names_brings_the_package(module):
    assert PACKAGES.get(module, module.replace("_", "-")) in brought_by(EXTRAS[module])


def test_the_demos_extra_is_what_gateways_and_operators_have():
    assert PROJECT["optional-dependencies"]["demo"] == ["fedgate[gateway,ner]"]
