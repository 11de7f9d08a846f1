"""`fedgate model predict`: text with what a model finds in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cli.evaluate_commands import DEFAULT_TASK, ReferenceOption, load_model
from cli.model_commands import app
from cli.options import ModelOption
from common.console import OUT, Format, FormatOption, emit_lines, working
from common.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")  # of labels, in their order


class TextUnreadable(RequestError):
    """A file of text cannot be read."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} cannot be read as text ({why}): name a UTF-8 file, or '-'")


@app.command("predict")
def predict(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="One sentence a line, words apart by spaces; none or '-': standard input.",
        ),
    ] = None,
    folder: ModelOption = Path("model"),
    text: Annotated[
        list[str] | None, typer.Option("--text", help="A sentence, instead of files.")
    ] = None,
    reference: ReferenceOption = DEFAULT_TASK,
    output: FormatOption = Format.TEXT,
) -> None:
    """Tag text: in colour on a terminal, else a word and its tag on each line.

    With `--format json` each sentence is an object on a line of its own.

    Examples:
        fedgate model predict --text "He takes warfarin ."

        fedgate model predict notes.txt --format json

        echo "He takes warfarin ." | fedgate model predict --model model
    """
    from tasks.loading import load_task

    task = load_task(reference)
    model, card = load_model(folder, task)
    lines = text or [line for file in files or [Path("-")] for line in _lines(file)]
    sentences = [words for line in lines if (words := line.split())]
    with working(f"tagging {len(sentences)} sentences"):
        tags = task.predict(model, sentences, card.labels)
    tagged = list(zip(sentences, tags, strict=True))
    if output is Format.JSON:
        emit_lines({"words": w, "tags": t} for w, t in tagged)
    elif OUT.is_terminal:
        for words, found in tagged:
            OUT.print(coloured(words, found, card.labels))
    else:
        sys.stdout.writelines(_columns(tagged))


def _lines(file: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise TextUnreadable(file, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise TextUnreadable(file, f"byte {error.start} is not UTF-8") from error
    return text.splitlines()


def coloured(words: Sequence[str], tags: Sequence[str], labels: Sequence[str]) -> Text:
    """Return a sentence with each entity in its label's colour, and the label after it."""
    line = Text()
    for label, found in _spans(words, tags):
        line.append(" " if line else "")
        if not label:
            line.append(found)
            continue
        place = labels.index(label) if label in labels else 0
        colour = COLOURS[place % len(COLOURS)]
        line.append(found, style=f"bold {colour}")
        line.append(f" [{label}]", style=colour)
    return line


def _spans(words: Sequence[str], tags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (label, text) of each entity, and of each word that is in none with no label."""
    label, together = "", list[str]()
    for word, tag in (*zip(words, tags, strict=True), ("", "O")):
        if together and not tag.startswith("I-"):
            yield label, " ".join(together)
            together = []
        if tag != "O":
            label = tag[2:]
            together.append(word)
        elif word:
            yield "", word


def _columns(sentences: Iterable[tuple[list[str], list[str]]]) -> Iterator[str]:
    """Yield lines in CoNLL form: a word and its tag, an empty line after each sentence."""
    for words, tags in sentences:
        yield from (f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True))
        yield "\n"
