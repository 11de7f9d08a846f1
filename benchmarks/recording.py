"""Records a command in a terminal as a picture that moves, SVG: the demo for the README.

python -m benchmarks.recording docs/images/demo.svg [-- COMMAND ...]

The command really runs, in a pseudo-terminal; what it shows is read as a terminal would, and each
screen that differs becomes a frame. Waits are shortened to LONGEST_S, and the last screen stays.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import tempfile
import termios
import time  # noqa: TID251 - it records when
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from xml.sax.saxutils import escape

import pyte
import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyte.screens import Char

DEMO = (str(Path(sys.executable).with_name("fedgate")), "demo")
TYPED = "fedgate demo"
COLUMNS, ROWS = 96, 37
LONGEST_S, LAST_S, SHORTEST_S = 1.2, 8.0, 0.4
CHAR, LINE, MARGIN = 8.4, 18, 14
COLOURS = {
    "default": "#d8dee9",
    "red": "#f28b82",
    "green": "#8fd19e",
    "brown": "#e6c07b",
    "blue": "#82aaff",
    "magenta": "#d7a1e8",
    "cyan": "#7fdbca",
}
CLEAN = {"NO_COLOR", "FEDGATE_OPERATOR_CONFIG", "FEDGATE_DATA"}


@dataclass(frozen=True)
class Frame:
    """What the terminal showed, from a moment on."""

    at_s: float
    lines: tuple[str, ...]  # each as SVG's text, without what is right of it


def main(
    path: Annotated[Path, typer.Argument(help="Where to write the picture.")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run; else the demo.")] = None,
) -> None:
    """Run it, watch it, write the picture."""
    with tempfile.TemporaryDirectory(prefix="fedgate-") as folder:  # for the model, then gone
        frames = shortened(list(recorded(tuple(command) if command else DEMO, folder)))
    path.write_text(drawn(frames, " ".join(command) if command else TYPED), encoding="utf-8")
    print(f"{path}: {len(frames)} frames, {path.stat().st_size:,} bytes")


def recorded(command: tuple[str, ...], folder: str) -> Iterator[Frame]:
    """Run a command in a folder, in a terminal; yield each screen that differs from the last."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    began, before = time.monotonic(), None
    for piece in _output(command, folder):
        stream.feed(piece)
        lines = tuple(_line(screen, row) for row in range(ROWS))
        if lines != before:
            yield Frame(time.monotonic() - began, lines)
            before = lines


def _output(command: tuple[str, ...], folder: str) -> Iterator[bytes]:
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        kept = {name: value for name, value in os.environ.items() if name not in CLEAN}
        os.execvpe(command[0], command, {**kept, "TERM": "xterm-256color"})  # noqa: S606 - ours
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # how Linux says that the other side has gone
            break
        if not piece:
            break
        yield piece
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"{' '.join(command)} has failed: nothing was written")


def _line(screen: pyte.Screen, row: int) -> str:
    cells = [screen.buffer[row][column] for column in range(COLUMNS)]
    while cells and cells[-1].data == " ":
        cells.pop()
    runs = (("".join(cell.data for cell in run), style) for style, run in groupby(cells, _style))
    return "".join(
        f"<tspan {style}>{escape(text)}</tspan>" if style else escape(text) for text, style in runs
    )


def _style(cell: Char) -> str:
    colour = COLOURS.get(cell.fg.removeprefix("bright"), COLOURS["default"])
    said = [f'fill="{colour}"'] if colour != COLOURS["default"] else []
    return " ".join([*said, *(['font-weight="bold"'] if cell.bold else [])])


def shortened(frames: list[Frame]) -> list[Frame]:
    """Return the frames with short waits between them, those left out that were hardly seen."""
    kept: list[Frame] = []
    clock, before = 0.0, 0.0
    for frame in frames:
        waited = frame.at_s - before
        if kept and waited < SHORTEST_S:
            kept[-1] = Frame(kept[-1].at_s, frame.lines)
            continue
        before = frame.at_s
        clock += min(waited, LONGEST_S)
        kept.append(Frame(clock, frame.lines))
    return kept


def drawn(frames: list[Frame], typed: str) -> str:
    """Return the picture: every different line once, and a film of what refers to them."""
    height = ROWS * LINE + 2 * MARGIN + LINE
    width = round(COLUMNS * CHAR + 2 * MARGIN)
    whole = frames[-1].at_s + LAST_S
    names: dict[str, str] = {}
    film = []
    for number, frame in enumerate(frames):
        for row, line in enumerate(frame.lines):
            if line:
                name = names.setdefault(line, f"l{len(names)}")
                y = number * height + MARGIN + (row + 2) * LINE
                film.append(f'<use href="#{name}" y="{y}"/>')
    moves = "".join(
        f"{100 * (frame.at_s if number else 0) / whole:.2f}%"
        f"{{transform:translateY({-number * height}px)}}"
        for number, frame in enumerate(frames)
    )
    last = -(len(frames) - 1) * height
    lines = "".join(f'<text id="{name}" x="{MARGIN}">{line}</text>' for line, name in names.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(typed)}, recorded</title><style>"
        f"text{{font:14px ui-monospace,DejaVu Sans Mono,monospace;white-space:pre;"
        f"fill:{COLOURS['default']}}}"
        f".film{{animation:film {whole:.1f}s step-end infinite}}@keyframes film{{{moves}}}"
        f"@media(prefers-reduced-motion:reduce){{.film{{animation:none;"
        f"transform:translateY({last}px)}}}}"
        f"</style><defs>{lines}</defs>"
        f'<rect width="{width}" height="{height}" rx="10" fill="#1e2430"/>'
        f'<text x="{MARGIN}" y="{MARGIN + LINE - 4}"><tspan fill="{COLOURS["green"]}">$</tspan> '
        f"{escape(typed)}</text>"
        f'<g class="film">{"".join(film)}</g></svg>\n'
    )


if __name__ == "__main__":
    typer.run(main)
