"""How every command speaks: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from enum import StrEnum
from threading import Timer
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from common.errors import FederationError, RequestError
from common.extras import missing_package
from common.version import SOFTWARE_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)
OUT = Console(highlight=False, soft_wrap=True)
PATIENCE_S = 2.0  # of a person who sees nothing happen


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]


def emit_json(value: Any) -> None:
    """Print one JSON object on standard output; dataclasses and models become objects."""
    sys.stdout.write(json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def jsonable(value: Any) -> Any:
    """Return `value` as JSON has it: dataclasses and models as objects, paths as strings."""
    return TypeAdapter(Any).dump_python(value, mode="json")


def emit_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table for people on standard output."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    OUT.print(table)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on standard error what is being done, where that takes long.

    On a terminal a line that moves, gone at the end; elsewhere one line after PATIENCE_S.
    """
    if ERRORS.is_terminal:
        with ERRORS.status(f"{what} …"):
            yield
        return
    timer = Timer(PATIENCE_S, ERRORS.print, (f"{what} …",), {"markup": False})
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer hands it over
    if asked:
        OUT.print(f"fedgate {SOFTWARE_VERSION}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
    ),
]


def run_app(app: Callable[[], None]) -> None:
    """Run a command line; an error of ours ends it with one screen of text and exit code 1."""
    try:
        app()
    except FederationError as error:
        fail(error)
    except ModuleNotFoundError as error:
        if (missing := missing_package(error)) is None:
            raise
        fail(missing)
    except KeyboardInterrupt:
        ERRORS.print("stopped")
        sys.exit(130)


def fail(error: FederationError) -> None:
    """Print what went wrong and the way out; leave with exit code 1.

    Where the result would have been JSON, so is the error, on standard output.
    """
    ERRORS.print("error:", style="bold red", end=" ")
    ERRORS.print(str(error), markup=False)
    if "json" in sys.argv[1:] or "--format=json" in sys.argv[1:]:
        kind = type(error).__name__
        emit_json({"error": {"kind": kind, "field": error.field, "message": str(error)}})
    sys.exit(1)


class AnswerMissing(RequestError):
    """A command needs to know something, and there is nobody to ask."""

    def __init__(self, option: str, question: str) -> None:
        super().__init__(
            f"{option} is missing ({question}), and standard input is no terminal to ask on: "
            "give it as an option"
        )
        self.field = option


def answer(given: str | None, option: str, question: str, default: str | None = None) -> str:
    """Return what was given as an option, else what a person answers, else the default.

    Raises:
        AnswerMissing: nothing was given, there is no terminal to ask on and no default.
    """
    if given is not None:
        return given
    if sys.stdin.isatty():
        return str(typer.prompt(question, default=default, err=True))
    if default is None:
        raise AnswerMissing(option, question)
    return default
