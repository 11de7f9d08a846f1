"""The keys of "A federation by hand" are made as the page says, and the examples find them."""

from __future__ import annotations

import re
import shutil
import tomllib

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.docs import command_lines
from tests.docs.blocks import blocks
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "how-to" / "a-federation-by-hand.md"
SERVES = "fedgate serve --config "
LOOP = re.compile(r"for i in ([\d ]+); do (.*); done")


def unrolled(script: str) -> list[str]:
    """Return the lines of a script; of a loop over numbers, its body for each of them."""
    lines = []
    for line in script.splitlines():
        loop = LOOP.fullmatch(line)
        lines += [loop[2].replace("$i", number) for number in loop[1].split()] if loop else [line]
    return lines


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder with the examples, in which the page's first block was typed up to `serve`."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    script, is_served, _ = blocks(PAGE)[0].text.partition(SERVES)
    assert is_served
    for line in unrolled(script):
        for words in command_lines.simple_commands(line):
            if words[0] == "fedgate":
                said = CliRunner().invoke(app, words[1:])
                assert said.exit_code == 0, said.output
    return tmp_path


def test_every_key_and_certificate_that_the_examples_name_is_made(made):
    names = re.compile(r'"(keys/[^"]+)"')
    settings = list((made / "examples" / "letters").glob("*.toml"))
    wanted = {name for path in settings for name in names.findall(path.read_text())}
    assert len(settings) == 6
    assert len(wanted) > 12
    assert {name for name in wanted if not (made / name).is_file()} == set()


def test_the_page_names_settings_that_are_there():
    named = re.findall(r"examples/[\w/$.-]+\.toml", PAGE.read_text())
    paths = {name.replace("$i", number) for name in named for number in "123"}
    assert len(paths) == 6
    for path in paths:
        assert tomllib.loads((ROOT / path).read_text())
