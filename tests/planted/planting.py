"""Puts one bug into this process: its module is changed while it is imported."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path

from tests.planted.bugs import Bug

ROOT = Path(__file__).parents[2]


class NotPlanted(Exception):
    """The source no longer holds what a bug replaces: bring tests/planted/bugs.py up to date."""


def plant(bug: Bug) -> None:
    """Make the bug's module faulty; it must not have been imported yet."""
    if bug.module in sys.modules:
        raise NotPlanted(f"{bug.name}: {bug.module} is imported already")
    sys.meta_path.insert(0, _Finder(bug))


def planted(bug: Bug, source: str) -> str:
    """Return `source` with the bug in it."""
    if source.count(bug.sound) != 1:
        raise NotPlanted(f"{bug.name}: {bug.path} must hold exactly once: {bug.sound!r}")
    return source.replace(bug.sound, bug.faulty)


class _Loader(SourceFileLoader):
    """Loads one module with a bug in it; keeps no compiled copy."""

    def __init__(self, name: str, path: str, bug: Bug) -> None:
        super().__init__(name, path)
        self._bug = bug

    def get_code(self, fullname):
        source = self.get_data(self.get_filename(fullname)).decode()
        return compile(planted(self._bug, source), self.path, "exec", dont_inherit=True)


class _Finder:
    """Finds the one module that is to be faulty."""

    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def find_spec(self, fullname, path, target=None) -> ModuleSpec | None:
        if fullname != self._bug.module:
            return None
        origin = PathFinder.find_spec(fullname, path, target).origin
        loader = _Loader(fullname, origin, self._bug)
        return importlib.util.spec_from_file_location(fullname, origin, loader=loader)
