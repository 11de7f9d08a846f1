"""What holds of every command: help, examples, completion and exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.main import app as fedgate
from common import console
from gateway.cli import app as fedgate_gateway

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "how-to" / "when-something-is-wrong.md"
JSON = DOCS.with_name("read-json.md")
APPS = {"fedgate": fedgate, "fedgate-gateway": fedgate_gateway}
MODULES = {"fedgate": "cli", "fedgate-gateway": "gateway"}
WITH_EXAMPLES = [
    *("fedgate doctor", "fedgate init", "fedgate run start", "fedgate run watch"),
    "fedgate run prepare",
    *("fedgate run compare", "fedgate run export-figures", "fedgate plan check"),
    *("fedgate model export",),
    *("fedgate model evaluate", "fedgate model predict", "fedgate demo", "fedgate serve"),
    *("fedgate enroll create", "fedgate pki issue", "fedgate audit verify"),
    *("fedgate-gateway init", "fedgate-gateway run", "fedgate-gateway check"),
    *("fedgate-gateway enroll", "fedgate-gateway ledger show", "fedgate-gateway web link"),
    *("fedgate-gateway pause", "fedgate-gateway resume"),
]


WITHOUT_FORMAT = {  # and why
    "fedgate serve": "runs until it is stopped; its log is JSON where [log] says so",
    "fedgate-gateway run": "runs until it is stopped; its log is JSON where [log] says so",
    "fedgate audit export": "always prints lines of JSON",
    "fedgate-gateway audit export": "always prints lines of JSON",
    "fedgate-gateway ledger export": "always prints lines of JSON",
}


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    line = [sys.executable, "-m", MODULES[words[0]], *words[1:]]
    variables = {**os.environ, "NO_COLOR": "1", **environment}
    return subprocess.run(
        line, capture_output=True, text=True, cwd=ROOT, check=False, env=variables
    )


def commands(group, *path: str):
    """Yield (words, command) of every command below a group."""
    for name, command in getattr(group, "commands", {}).items():
        if getattr(command, "commands", None):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name)), command


ALL = {
    words: command
    for name, app in APPS.items()
    for words, command in commands(typer.main.get_command(app), name)
}


def examples_of(words: str) -> list[str]:
    """Return the lines of a command's help that show how it is typed."""
    text = ALL[words].help or ""
    lines = (line.strip() for line in text.partition("Example")[2].splitlines())
    return [line[line.index(words) :] for line in lines if words in line]


@pytest.mark.parametrize("words", sorted(ALL))
def test_every_command_says_in_a_sentence_what_it_does(words):
    first = (ALL[words].help or "").partition("\n\n")[0]
    assert first.rstrip().endswith((".", ":")), first


@pytest.mark.parametrize("words", sorted(ALL))
def test_every_command_prints_json_where_asked_or_is_known_not_to(words):
    takes_it = any("--format" in parameter.opts for parameter in ALL[words].params)
    assert takes_it != (words in WITHOUT_FORMAT)


def test_no_command_that_is_gone_is_excused_from_printing_json():
    assert WITHOUT_FORMAT.keys() <= ALL.keys()


def test_the_docs_say_of_every_command_what_its_json_has():
    rows = re.findall(r"^\| (`fedgate.+?) \|", JSON.read_text(), re.MULTILINE)
    told = set()
    for row in rows:
        group = ""
        for words in re.findall(r"`([^`]+)`", row):
            group = words.rpartition(" ")[0] if words.startswith("fedgate") else group
            told.add(words if words.startswith("fedgate") else f"{group} {words}")
    assert {words.partition(" --")[0] for words in told} == ALL.keys() - WITHOUT_FORMAT.keys()


@pytest.mark.parametrize("words", WITH_EXAMPLES)
def test_the_main_commands_show_examples_whose_options_are_there(words):
    found = examples_of(words)
    assert found
    known = {option for each in ALL[words].params for option in (*each.opts, *each.secondary_opts)}
    for line in found:
        ours = line.partition(" | ")[0]
        assert set(re.findall(r"--[a-z-]+", ours)) <= known, line


def test_a_command_that_takes_long_says_beside_its_result_what_it_does(monkeypatch):
    monkeypatch.setattr(console, "PATIENCE_S", 0.0)
    words = ["noise", "--target-epsilon", "2", "--sampling-rate", "0.1", "--steps", "100"]
    said = CliRunner().invoke(fedgate_gateway, [*words, "--format", "json"])
    assert said.stderr.startswith("looking for the least noise …\n")
    assert json.loads(said.stdout)["pld"] <= 2.0


def test_help_prints_the_examples():
    said = CliRunner().invoke(fedgate, ["run", "compare", "--help"])
    assert "fedgate run compare first second" in said.output


@pytest.mark.parametrize(("name", "offered"), [("fedgate", "doctor"), ("fedgate-gateway", "check")])
def test_a_shell_completes_the_commands(name, offered):
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    start = {"fedgate": "cli.main", "fedgate-gateway": "gateway.cli"}[name]
    code = f"import sys; from {start} import main; sys.argv[0] = {name!r}; main()"
    asked = {variable: "complete_bash", "COMP_WORDS": f"{name} {offered[:2]}", "COMP_CWORD": "1"}
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, **asked},
    )
    assert offered in said.stdout.split()


@pytest.mark.parametrize("name", APPS)
def test_a_command_tells_its_version(name):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    said = run(name, "--version")
    assert (said.returncode, said.stdout) == (0, f"fedgate {version}\n")


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("cli.main", ["fedgate", "demo"]),
        ("cli.main", ["fedgate", "plan", "check", "examples/letters/plan.toml"]),
        ("gateway.cli", ["fedgate-gateway", "run", "--config", "examples/letters/gateway-1.toml"]),
    ],
)
def test_without_torch_a_command_that_needs_it_says_what_brings_it(start, words):
    code = (
        "import sys; sys.modules['torch'] = None; "
        f"from {start} import main; sys.argv = {words!r}; main()"
    )
    line = [sys.executable, "-c", code]
    said = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    assert said.returncode == 1
    assert said.stderr.startswith("error: this needs the package 'torch'")
    assert "pip install 'fedgate[demo]'" in said.stderr


def codes() -> dict[int, str]:
    """Return the exit codes that the docs list."""
    section = DOCS.read_text().partition("## Exit codes")[2]
    return {int(n): text for n, text in re.findall(r"^\| (\d+) \| (.+) \|$", section, re.MULTILINE)}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("fedgate-gateway", "egress"), 0),
        (("fedgate", "serve", "--config", "none.toml"), 1),
        (("fedgate-gateway", "check", "--config", "none.toml"), 1),
        (("fedgate-gateway", "health", "--config", "examples/letters/gateway-1.toml"), 1),
        (("fedgate", "run", "watch"), 2),
        (("fedgate-gateway", "check", "--nonsense"), 2),
    ],
)
def test_exit_codes_are_those_of_the_docs(words, code):
    assert run(*words).returncode == code
    assert code in codes()


def test_ctrl_c_has_the_code_of_the_docs():
    code = "from common.console import run_app\ndef stop(): raise KeyboardInterrupt\nrun_app(stop)"
    line = [sys.executable, "-c", code]
    stopped = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (stopped.returncode, stopped.stderr.strip()) == (130, "stopped")
    assert set(codes()) == {0, 1, 2, 130}
