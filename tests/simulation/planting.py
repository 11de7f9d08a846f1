"""How a mistake is put into the running code; a plant that no longer fits the code is refused."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Bug:
    """One mistake: what it is, and what puts it into this process for good."""

    name: str
    plant: Callable[[], None]


def put(owner: object, name: str, faulty: Any) -> Any:
    """Put `faulty` in the place of what `owner` has under a name; return that."""
    sound = getattr(owner, name)  # else the code has changed: the bug needs another place
    setattr(owner, name, faulty)
    return sound


def everywhere(sound: Any, faulty: Any) -> None:
    """Put `faulty` wherever a module has imported `sound`."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(("orchestrator", "gateway", "common")):
            for name, value in list(vars(module).items()):
                if value is sound:
                    setattr(module, name, faulty)


class Forgetful:
    """A disk, or a file, as a program has it that leaves out a call, or makes it later."""

    def __init__(self, disk, call: str, later_s: float | None) -> None:
        self._disk = disk
        self._call = call
        self._later_s = later_s

    def __getattr__(self, name: str):
        sound = getattr(self._disk, name)
        if name == self._call:
            return partial(self._later, sound)
        if name in {"create", "extend"}:
            return lambda path: Forgetful(sound(path), self._call, self._later_s)
        return sound

    def _later(self, sound, *args) -> None:
        if self._later_s is not None:
            asyncio.get_running_loop().call_later(self._later_s, sound, *args)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close()


def leaves_out(
    store: type, place: int, call: str, later_s: float | None = None
) -> Callable[[], None]:
    """Return what has a store make `call` of its disk no more; the disk is its argument `place`."""

    def plant() -> None:
        sound = store.__init__

        def init(self, *args) -> None:
            disk = Forgetful(args[place], call, later_s)
            sound(self, *args[:place], disk, *args[place + 1 :])

        put(store, "__init__", init)

    return plant
