"""Finding the task that a configuration names: `tasks.ner:TASK` or `my_task.py:TASK`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import RequestError
from common.extras import missing_package
from tasks.task import Task

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLE = "'tasks.ner:TASK' or 'my_task.py:TASK'"


class TaskNotFound(RequestError):
    """A configuration names a task that cannot be imported."""

    field = "task"

    def __init__(self, reference: str, reason: str) -> None:
        super().__init__(f"task {reference!r}: {reason}; need a form like {EXAMPLE}")


class NotATask(RequestError):
    """The named object lacks what every task has."""

    field = "task"

    def __init__(self, reference: str, missing: list[str]) -> None:
        super().__init__(
            f"{reference!r} is not a task: it has no {', '.join(missing)}; "
            "tasks/task.py lists what a task has"
        )


def load_task(reference: str) -> Task:
    """Import the task that `reference` names: `module:NAME` or `path/to/file.py:NAME`.

    Raises:
        TaskNotFound: no such module, file or name.
        NotATask: the object lacks a member of the `Task` protocol.
    """
    where, colon, name = reference.rpartition(":")
    if not (where and colon and name):
        raise TaskNotFound(reference, "no colon between the module and the name")
    module = _load_file(reference, Path(where)) if where.endswith(".py") else _load(reference)
    found = getattr(module, name, None)
    if found is None:
        raise TaskNotFound(reference, f"{where} defines no {name}")
    return _checked(reference, found)


def _checked(reference: str, found: object) -> Task:
    if isinstance(found, Task):
        return found
    members = (name for name in vars(Task) if not name.startswith("_"))
    raise NotATask(reference, [name for name in members if not hasattr(found, name)])


def _load(reference: str) -> ModuleType:
    where = reference.rpartition(":")[0]
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        raise missing or TaskNotFound(reference, f"there is no module {error.name!r}") from None


def _load_file(reference: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise TaskNotFound(reference, f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:  # a name that ends in .py always has a loader
        raise TaskNotFound(reference, f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and annotations look their module up
    spec.loader.exec_module(module)
    return module
