"""Runs a tutorial as it is written: its files, its commands, and what it says they print.

The blocks of a page, in their order, are what a reader does in an empty folder:

    ```python title="a.py"                       writes a file
    ```python title="a.py, in place of X and Y"  puts these definitions where a.py has theirs
    ```sh                                        runs in one shell, the same for the whole page
    ```text                                      is what the commands before it print

In what is printed a number stands for any number, since noise is drawn anew each time, and lines
may stand between those that the page shows. Other blocks are only read.
"""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

from tests.docs.blocks import Block, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_S = 300.0  # for a whole page, where others compute as well; alone it takes a fifth
GRACE_S = 15.0  # for what a page started to leave
REPLACING = re.compile(r"(?P<file>\S+), in place of (?P<names>.+)")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# the trap says which line of the block failed; a subshell's own trap would say it twice
SHELL = "set -eE; trap 'echo \"FAILED-AT $LINENO\"' ERR\n"


class PageIsWrong(AssertionError):
    """A page does not do what it says."""

    def __init__(self, block: Block, line: int, why: str) -> None:
        super().__init__(f"{block.page.name}, line {line}: {why}")


def run_page(page: Path, folder: Path) -> None:
    """Do in `folder` what `page` says; raise PageIsWrong with the line where it is not so."""
    printed = ""
    with _shell(folder) as shell:
        for block in blocks(page):
            if block.title:
                _write(block, folder)
            elif block.language == "sh":
                printed = _run(block, shell, folder)
            elif block.language == "text":
                check_printed(block, printed)


def check_printed(block: Block, printed: str) -> None:
    """Raise PageIsWrong unless the lines of `block` are among those printed, in their order."""
    found = iter([_loose(line) for line in printed.splitlines()])
    for offset, line in enumerate(block.text.splitlines()):
        if line.strip() and _loose(line) not in found:
            raise PageIsWrong(block, block.line + offset, f"not printed: {line}\n{printed}")


def replaced(source: str, names: set[str], new: str) -> str:
    """Return `source` with its top-level definitions of `names` as `new` has them.

    Raises:
        ValueError: `new` does not define exactly these, or `source` lacks one.
    """
    theirs, ours = _definitions(source), _definitions(new)
    if ours.keys() != names or not names <= theirs.keys():
        msg = f"defines {sorted(ours)} in place of {sorted(names)}, the file has {sorted(theirs)}"
        raise ValueError(msg)
    lines, fresh = source.splitlines(keepends=True), new.splitlines(keepends=True)
    for name in sorted(names, key=lambda name: theirs[name].start, reverse=True):
        old, its = theirs[name], ours[name]
        lines[old.start : old.stop] = fresh[its.start : its.stop]
    return "".join(lines)


def _definitions(source: str) -> dict[str, range]:
    """Return the lines, from 0, of each class, function and assignment at the top level."""
    found = {}
    for node in ast.parse(source).body:
        lines = range(node.lineno - 1, node.end_lineno or node.lineno)
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = lines
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = lines
    return found


def _write(block: Block, folder: Path) -> None:
    match = REPLACING.fullmatch(block.title)
    if match is None:
        (folder / block.title).write_text(block.text, encoding="utf-8")
        return
    path, names = folder / match["file"], set(re.split(r", | and ", match["names"]))
    try:
        text = replaced(path.read_text(encoding="utf-8"), names, block.text)
    except (OSError, SyntaxError, ValueError) as error:
        raise PageIsWrong(block, block.line, str(error)) from error
    path.write_text(text, encoding="utf-8")


@contextmanager
def _shell(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A shell in `folder`; what it started is gone when the block ends."""
    scratch = folder / ".tmp"
    scratch.mkdir()
    here = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(scratch),
        "OMP_NUM_THREADS": "1",  # pages run side by side, and threads would wait for each other
    }
    shell = subprocess.Popen(
        ["bash", "--noprofile", "--norc"],
        cwd=folder,
        env={**os.environ, **here},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    late = Timer(LIMIT_S, _end, (shell, signal.SIGTERM))
    late.start()
    try:
        yield shell
    finally:
        late.cancel()
        _leave(shell)


def _run(block: Block, shell: subprocess.Popen[str], folder: Path) -> str:
    """Run the commands of `block`; return what they printed."""
    script = folder / ".block"
    script.write_text(block.text, encoding="utf-8")
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{SHELL}source {script} < /dev/null\necho DONE\n")
    shell.stdin.flush()
    printed = ""
    for line in shell.stdout:
        if line == "DONE\n":
            return printed
        printed += line
    failed = re.findall(r"^FAILED-AT (\d+)$", printed, re.MULTILINE)
    line = block.line + int(failed[0]) - 1 if failed else block.line
    why = "the command failed" if failed else f"the commands did not end within {LIMIT_S:.0f} s"
    raise PageIsWrong(block, line, f"{why}:\n{printed}")


def _leave(shell: subprocess.Popen[str]) -> None:
    _end(shell, signal.SIGTERM)
    try:
        shell.communicate(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        _end(shell, signal.SIGKILL)
        shell.communicate()
    _end(shell, signal.SIGKILL)


def _end(shell: subprocess.Popen[str], how: signal.Signals) -> None:
    """Send a signal to the shell and to all that it started."""
    try:
        os.killpg(shell.pid, how)
    except ProcessLookupError:
        return


def _loose(line: str) -> str:
    return " ".join(NUMBER.sub("0", line).split())
