"""`fedgate new`: files to begin with."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.machinery import PathFinder
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from common.console import OUT, Format, FormatOption, emit_json
from common.errors import RequestError
from common.key_files import write_new

app = typer.Typer(no_args_is_help=True, help="Write a task of your own to begin with.")

MODULE = "cli.skeleton.task"  # as the skeleton's tests name the skeleton
NAME = "skeleton"


class NotATaskName(RequestError):
    """What a new task is to be called cannot name a Python file, or names another one already."""

    field = "name"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"a task cannot be called {name!r}: {why}; use lower-case letters, digits and '_', a "
            "letter first, and a name that no Python module has: e.g. loan_risk"
        )


@app.callback()
def new() -> None:
    """Write a task of your own to begin with."""


@app.command("task")
def task(
    name: Annotated[str, typer.Argument(help="What the task is called, and its file.")],
    out: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path(),
    output: FormatOption = Format.TEXT,
) -> None:
    """Write a task that runs as it is, NAME.py, and its tests, test_NAME.py.

    Example:
        fedgate new task loan_risk
    """
    check_name(name)
    code, tests = f"{name}.py", f"test_{name}.py"
    write_new(out, {code: _written("task.py", name), tests: _written("test_task.py", name)})
    if output is Format.JSON:
        emit_json({"task": out / code, "tests": out / tests})
        return
    say = f"made {out / code} and {out / tests}: try them with `python -m pytest {out / tests}`"
    OUT.print(say, markup=False)


def check_name(name: str) -> None:
    """Raise NotATaskName unless a file of this name can be imported and hides nothing."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        raise NotATaskName(name, "it is no name of a Python file")
    if keyword.iskeyword(name):
        raise NotATaskName(name, "it is a word of Python itself")
    here = {"", str(Path.cwd())}
    elsewhere = [folder for folder in sys.path if folder not in here]
    if name in sys.stdlib_module_names or PathFinder.find_spec(name, elsewhere) is not None:
        raise NotATaskName(name, "a module of that name is installed, and one would hide the other")


def _written(template: str, name: str) -> bytes:
    text = files("cli.skeleton").joinpath(template).read_text(encoding="utf-8")
    title = "".join(word.capitalize() for word in name.split("_"))
    text = text.replace(MODULE, name).replace(NAME, name).replace(NAME.capitalize(), title)
    return text.encode()
