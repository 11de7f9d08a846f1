"""How every command speaks: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.clock import SystemClock
from common.dates import in_words
from common.errors import FederationError, RequestError
from common.extras import missing_package
from common.version import SOFTWARE_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)
OUT = Console(highlight=False, soft_wrap=True)
PATIENCE_S = 2.0  # of a person who sees nothing happen
INTERVAL_S = 10.0  # from one plain line to the next


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


def emit_lines(values: Iterable[Any]) -> None:
    """Print one JSON object a line: the way in which every list is printed."""
    for value in values:
        emit_json(value)


def emit_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table for people on standard output."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    OUT.print(table)


class Pace:
    """How fast something goes on, from the first time that it was seen."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None  # how far it was, and when

    def left(self, done: int, total: int, now: float) -> str:
        """Return how long the rest may take in words, or nothing where that is not known."""
        if self._first is None:
            self._first = (done, now)
        begun, at = self._first
        if done <= begun or done >= total:
            return ""
        return in_words(timedelta(seconds=(now - at) / (done - begun) * (total - done)))


class Work:
    """Something that takes long, and how far it is, as one line tells it."""

    def __init__(self, what: str) -> None:
        self._what, self._pace, self._line = what, Pace(), f"{what} …"
        self._changed: Callable[[str], object] = lambda _: None

    def reached(self, done: int, total: int) -> None:
        """Note how far it is; also from another thread."""
        left = self._pace.left(done, total, SystemClock().now())
        rest = f", about {left} left" if left else ""
        self._line = f"{self._what}: {100 * done // max(total, 1)} %{rest}"
        self._changed(self._line)

    @contextmanager
    def on_terminal(self) -> Iterator[None]:
        """Show a line that moves, gone at the end."""
        with ERRORS.status(Text(self._line)) as status:
            self._changed = lambda line: status.update(Text(line))
            yield

    @contextmanager
    def in_lines(self) -> Iterator[None]:
        """Print a line after PATIENCE_S, and then one each INTERVAL_S."""
        ended = Event()

        def speak() -> None:
            wait_s = PATIENCE_S
            while not ended.wait(wait_s):
                ERRORS.print(self._line, markup=False)
                wait_s = INTERVAL_S

        speaking = Thread(target=speak, daemon=True)
        speaking.start()
        try:
            yield
        finally:
            ended.set()
            speaking.join()


@contextmanager
def working(what: str, *, is_told: bool = True) -> Iterator[Work]:
    """Say on standard error what is being done, where that takes long, and how far it is.

    On a terminal a line that moves; elsewhere plain lines. With `is_told` false nothing is said.
    Nothing may be printed inside the block.
    """
    work = Work(what)
    if not is_told:
        yield work
        return
    with work.on_terminal() if ERRORS.is_terminal else work.in_lines():
        yield work


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
