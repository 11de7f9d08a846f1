"""The reference of the command lines, from the commands themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args

import typer

from cli.main import app as fedgate
from common.markdown import row, table
from gateway.cli import app as fedgate_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

APPS = {"fedgate": fedgate, "fedgate-gateway": fedgate_gateway}
_EXAMPLES = re.compile(r"\n\nExamples?:\n")


@dataclass(frozen=True)
class Command:
    """A command by the words that call it, as typer has it."""

    words: tuple[str, ...]
    parsed: Any  # typer brings a parser of its own, whose classes it does not publish

    @property
    def name(self) -> str:
        """How it is called, without options."""
        return " ".join(self.words)


def commands() -> Iterator[Command]:
    """Yield every command of both programs, groups left out."""
    for name, app in APPS.items():
        yield from _below(Command((name,), typer.main.get_command(app)))


def _below(command: Command) -> Iterator[Command]:
    inner = getattr(command.parsed, "commands", None)
    if not inner:
        yield command
        return
    for name, parsed in sorted(inner.items()):
        if not parsed.hidden:
            yield from _below(Command((*command.words, name), parsed))


def pages() -> dict[str, tuple[str, str]]:
    """Return a page for each of the two programs: title and text by file name."""
    return {f"{name}.md": (name, _page(name)) for name in APPS}


def _page(program: str) -> str:
    found = [command for command in commands() if command.words[0] == program]
    help_line = APPS[program].info.help
    sections = "".join(map(_section, found))
    return (
        f"# `{program}`\n\n{help_line}\n\nEvery command has `--help`. What exit codes mean is said "
        "[here](exit-codes.md); `--format json` prints one JSON object on standard output, and an "
        f"error as one too.\n{sections}"
    )


def _section(command: Command) -> str:
    what, *examples = _EXAMPLES.split(command.parsed.help or "")
    needed = [_placeholder(each) for each in command.parsed.params if each.required]
    optional = any(not each.required for each in command.parsed.params)
    usage = " ".join((command.name, *needed, *(["[OPTIONS]"] if optional else [])))
    shown = "".join(f"\n```sh\n{_dedented(lines)}\n```\n" for lines in examples)
    options = table(("option", "takes", "default", "meaning"), map(_option, command.parsed.params))
    return f"\n## {command.name}\n\n{what}\n\n```text\n{usage}\n```\n{shown}\n{options}"


def _dedented(lines: str) -> str:
    return "\n".join(line.strip() for line in lines.splitlines() if line.strip())


def _placeholder(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"{parameter.name.upper()}{'...' if parameter.nargs != 1 else ''}"
    return f"{parameter.opts[0]} {_takes(parameter)}"


def _option(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [parameter.name.upper()]
    name = ", ".join(f"`{each}`" for each in names)
    takes = _takes(parameter)
    return row(name, f"`{takes}`" if takes else "", _default(parameter), parameter.help or "")


def _takes(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    kind = parameter.type_descriptor.annotation
    inner = [each for each in get_args(kind) if each not in {type(None), ...}] or [kind]
    words = "|".join(map(_words, inner))
    return f"{words} ..." if parameter.multiple or parameter.nargs != 1 else words


def _words(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(each.value) for each in kind)
    return str(getattr(kind, "__name__", kind)).upper().replace("STR", "TEXT")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "**needed**"
    default = parameter.default
    if default is None or default is False or default in ((), []) or callable(default):
        return ""
    return f"`{default.value if isinstance(default, Enum) else default}`"
