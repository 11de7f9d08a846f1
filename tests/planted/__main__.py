"""`python -m tests.planted`: shows that every planted bug is caught, and by which test."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.planted.bugs import BUGS, Bug
from tests.planted.planting import ROOT, plant

AT_ONCE = 2  # processes
HEAVY = ("alembic.command", "dp_accounting.pld", "scipy.stats", "torch.func")


def outcomes(bug: Bug | None, tests: tuple[str, ...]) -> dict[str, str]:
    """Run `tests` with one bug, or none; return passed, failed or broken for each."""
    os.chdir(ROOT)
    if bug is not None:
        plant(bug)
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
        report = Path(folder) / "report.xml"
        options = ["-p", "no:cacheprovider", "--hypothesis-profile=planted"]
        options += [] if bug is None else ["--exitfirst"]  # one failure is enough
        pytest.main([*options, f"--junit-xml={report}", *tests])
        cases = ET.parse(report).iter("testcase") if report.exists() else ()  # noqa: S314  # ours
        found = [(case.get("name", "").partition("[")[0], _outcome(case)) for case in cases]
    return {test: _worst([o for n, o in found if n == test.partition("::")[2]]) for test in tests}


def _outcome(case: ET.Element) -> str:
    """Tell a claim that does not hold from a test that could not be run."""
    failure = case.find("failure")
    if failure is None:
        return "broken" if case.find("error") is not None else "passed"
    words = failure.get("message", "").lower()
    return "failed" if "assert" in words or "did not raise" in words else "broken"


def _worst(results: list[str]) -> str:
    return next((one for one in ("broken", "failed", "passed") if one in results), "broken")


def main() -> int:
    """Return 0 if every test passes without its bug and fails with it."""
    for module in HEAVY:  # imported once: every run is a fork that imports the product itself
        importlib.import_module(module)
    jobs: list[tuple[Bug | None, tuple[str, ...]]]
    jobs = [(None, tuple(sorted({bug.caught_by for bug in BUGS})))]
    jobs += [(bug, (bug.caught_by,)) for bug in BUGS]
    with multiprocessing.get_context("fork").Pool(AT_ONCE, maxtasksperchild=1) as pool:
        sound, *faulty = pool.starmap(outcomes, jobs, chunksize=1)
    all_caught = True
    for bug, result in zip(BUGS, faulty, strict=True):
        without, given = sound[bug.caught_by], result[bug.caught_by]
        is_caught = (without, given) == ("passed", "failed")
        all_caught &= is_caught
        verdict = "caught" if is_caught else "MISSED"
        print(f"{verdict}  {bug.name}: without it {without}, with it {given}")  # noqa: T201
        print(f"        {bug.caught_by}")  # noqa: T201
    return 0 if all_caught else 1


if __name__ == "__main__":
    sys.exit(main())
