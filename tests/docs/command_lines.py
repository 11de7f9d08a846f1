"""What a line of a page would call, read by the real command lines without doing any of it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import runpy
import shlex
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING
from unittest.mock import patch

import typer

from benchmarks.registry import BENCHMARKS
from cli.main import app as fedgate
from gateway.cli import app as fedgate_gateway
from tests.docs.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

APPS = {"fedgate": fedgate, "fedgate-gateway": fedgate_gateway}
PYTHONS = {"python", ".venv/bin/python"}
PUNCTUATION = "();|&"  # between commands
KEYWORDS = {"do", "done", "wait"}
REDIRECTS = {">", ">>", "<"}
# of a shell, of Debian, of Docker, of PostgreSQL and of a virtual environment: not ours to check
OTHERS = {
    *(".", "cd", "chmod", "createdb", "createuser", "docker", "echo", "export", "for"),
    *("install", "openssl", "pip", "python3.11", "rm", "sha256sum", "sysctl"),
    *("umask", ".venv/bin/pre-commit"),
}
_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_VARIABLE = re.compile(r"^([A-Z_]+) *[?:]?=", re.MULTILINE)
_TARGET = re.compile(r"^([a-z-]+):.*## ", re.MULTILINE)
_OPTION = re.compile(r"--[a-z][a-z-]*")


class Wrong(AssertionError):
    """A page shows a command that is not there, or not like that."""


def simple_commands(text: str) -> Iterator[list[str]]:
    """Yield the commands of a script as words, without assignments and redirections."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if word in KEYWORDS or not word.strip(PUNCTUATION):
                yield from _ended(words)
                words = []
            else:
                words.append(word)
        yield from _ended(words)


def _ended(words: list[str]) -> Iterator[list[str]]:
    for place, word in enumerate(words):
        if word in REDIRECTS:
            words = words[:place]  # what follows is a file
            break
    while words and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    if words:
        yield words


def check(words: list[str]) -> None:
    """Raise Wrong unless the command is there and takes what it is given."""
    program = words[0].removeprefix("~/fedgate/bin/")  # where the pages install from a bundle
    words = [program, *words[1:]]
    if program == "docker":
        inner = [n for n, word in enumerate(words) if word in APPS]
        if inner:  # `docker compose exec SERVICE fedgate ...`
            check(words[inner[0] :])
    elif program in APPS:
        _check_app(words)
    elif program == "make":
        _check_make(words[1:])
    elif program in PYTHONS:
        _check_python(words[1:])
    elif program not in OTHERS:
        raise Wrong(f"{program}: no such program is known: mend the page, or name it in OTHERS")


@cache
def _parser(program: str):
    return typer.main.get_command(APPS[program])


def resolved(words: list[str], *, group_will_do: bool = False):
    """Return the command that words call, and the words after its name."""
    command, rest = _parser(words[0]), words[1:]
    while (commands := getattr(command, "commands", None)) is not None:
        if not rest and group_will_do:
            break
        if not rest or rest[0] not in commands:
            raise Wrong(f"{' '.join(words)}: {' '.join(rest[:1]) or 'nothing'} is no command of it")
        command, rest = commands[rest[0]], rest[1:]
    return command, rest


def _check_app(words: list[str]) -> None:
    if words[1:] in (["--help"], ["--version"]):
        return
    command, rest = resolved(words)
    try:
        command.make_context(" ".join(words), list(rest))
    except (typer.Exit, typer.Abort):
        return  # --help
    except Exception as error:
        message = getattr(error, "message", None) or error
        raise Wrong(f"{' '.join(words)}: {message}") from error


@cache
def make_targets() -> frozenset[str]:
    """Return what `make` can be asked for."""
    return frozenset(_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))


def _check_make(words: list[str]) -> None:
    variables = set(_VARIABLE.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    for word in words:
        name, is_assignment, _ = word.partition("=")
        if name not in (variables if is_assignment else make_targets()):
            raise Wrong(f"make {word}: the Makefile has no {name}")


def _check_python(words: list[str]) -> None:
    if words[0] != "-m":
        of_a_bundle = words[0].startswith("wheels/")
        if not of_a_bundle and not (ROOT / words[0]).is_file():
            raise Wrong(f"python {words[0]}: there is no such file")
        return
    module, options = words[1], words[2:]
    if module == "pytest":
        missing = [each for each in options if not (ROOT / each.partition("::")[0]).exists()]
    else:
        if importlib.util.find_spec(module) is None:
            raise Wrong(f"python -m {module}: there is no such module")
        if module == "benchmarks":
            named = {word for word in options if not word.startswith("--")}
            if unknown := named - {each.name for each in BENCHMARKS}:
                raise Wrong(f"python -m benchmarks: there is no {', '.join(sorted(unknown))}")
        given = {option for word in options for option in _OPTION.findall(word)[:1]}
        missing = sorted(given - _options(module)) if given else []
    if missing:
        raise Wrong(f"python -m {module}: it has no {', '.join(missing)}")


@cache
def _options(module: str) -> frozenset[str]:
    """Return the options that a program's own help names."""
    said = io.StringIO()
    with (
        patch.object(sys, "argv", [module, "--help"]),
        patch.dict(os.environ, COLUMNS="200", TERM="dumb"),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
        warnings.catch_warnings(action="ignore"),  # some were imported before
    ):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return frozenset(_OPTION.findall(said.getvalue()))
