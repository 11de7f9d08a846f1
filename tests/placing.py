"""Finds where our code makes a tensor without saying where: on a GPU it would lie elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

import private_step

PACKAGE = Path(private_step.__file__).parent
PLACED = (PACKAGE, PACKAGE.parent / "gateway")
ON_PURPOSE = {("gateway/one_backward.py", "tensor")}  # counted on the processor, then moved


class Unplaced(AssertionError):
    """A tensor was made without saying where."""


class EverythingIsPlaced(TorchFunctionMode):
    """Raises where our own code makes a tensor on whatever device torch makes them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function in _device_constructors() and not (kwargs or {}).get("device")
        if made and (where := _our_caller()) and (where, function.__name__) not in ON_PURPOSE:
            raise Unplaced(where, function.__name__)
        return function(*args, **(kwargs or {}))


def _our_caller() -> str | None:
    path = Path(sys._getframe(2).f_code.co_filename)
    ours = any(path.is_relative_to(folder) for folder in PLACED)
    return path.relative_to(PACKAGE.parent).as_posix() if ours else None
