"""What a check finds: one sentence each, the very one that the real start would end with."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from common.console import OUT
from common.errors import FederationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # it starts, and may come to harm
    PROBLEM = "problem"  # it does not start, or nothing comes of it


_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str  # what was looked at, in a word or two
    message: str  # unless all is well: what is wrong, where, and what to do
    kind: str = ""  # the error's, where there is one


class Findings:
    """What was found so far, in the order of looking."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def ok(self, about: str, message: str) -> None:
        """Note that something is as it should be."""
        self.all.append(Finding(Level.OK, about, message))

    def warn(self, about: str, message: str) -> None:
        """Note what may come to harm."""
        self.all.append(Finding(Level.WARNING, about, message))

    def problem(self, about: str, error: FederationError) -> None:
        """Note what keeps it from working, with the error's own sentence, and that once."""
        if not any(each.message == str(error) for each in self.all):
            self.refusal(about, str(error), type(error).__name__)

    def refusal(self, about: str, sentence: str, kind: str) -> None:
        """Note what keeps it from working, where that is no error."""
        self.all.append(Finding(Level.PROBLEM, about, sentence, kind))

    @contextmanager
    def looking_at(self, about: str) -> Iterator[None]:
        """Note an error of ours inside the block, which ends the block and nothing else."""
        try:
            yield
        except FederationError as error:
            self.problem(about, error)

    @property
    def are_fine(self) -> bool:
        """Whether there is no problem among them."""
        return all(each.level is not Level.PROBLEM for each in self.all)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print a line for each finding, and at the end how many are not as they should be."""
    width = max((len(each.about) for each in findings), default=0)
    for each in findings:
        OUT.print(f"{each.level:8}", style=_STYLES[each.level], end="")
        OUT.print(f"{each.about:{width}}  {' '.join(each.message.split())}", markup=False)
    counts = {level: sum(each.level is level for each in findings) for level in Level}
    problems, warnings, fine = (counts[each] for each in (Level.PROBLEM, Level.WARNING, Level.OK))
    OUT.print(f"problems: {problems}, warnings: {warnings}, in order: {fine}")
