"""Runs a module of ours and kills its process at a named point, or freezes it there.

    python -m tests.faults.killed POINT -- orchestrator --config orchestrator.toml

A point is `module:Class.method:before|after|first:TEXT:N[:SIGNAL]`: the N-th call of the method
whose arguments mention TEXT (empty: any). `first` is for an iterator that is handed to the method:
the process dies once its first item has been taken. SIGSTOP freezes instead: after SIGCONT it goes
on where it was. Production code holds no such points: they are laid over it here.
"""

from __future__ import annotations

import importlib
import inspect
import os
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any


class Deadly:
    """A method that kills its process on the N-th call that mentions a text."""

    def __init__(
        self, original: Callable[..., Any], when: str, text: str, number: int, end: signal.Signals
    ) -> None:
        self.original, self.when, self.text, self.left = original, when, text, number
        self.end = end

    def die(self) -> None:
        os.kill(os.getpid(), self.end)

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return when to die in this call, if at all; die if that is now."""
        self.left -= self.text in f"{args}{kwargs}"
        due = self.when if self.left == 0 else ""
        self.left -= bool(due)
        if due == "before":
            self.die()
        return due

    def call(self, *args: Any, **kwargs: Any) -> Any:
        due = self.enter(args, kwargs)
        result = self.original(*args, **kwargs)
        if due == "after":
            self.die()
        return result

    async def call_async(self, *args: Any, **kwargs: Any) -> Any:
        due = self.enter(args, kwargs)
        if due == "first":
            args = (*args[:-1], self.dying(args[-1]))
        result = await self.original(*args, **kwargs)
        if due == "after":
            self.die()
        return result

    async def dying(self, items: Any) -> Any:
        async for item in items:
            yield item
            self.die()


def plant(point: str) -> None:
    module, path, when, text, number, *end = point.split(":")
    owner: Any = importlib.import_module(module)
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    signal_number = signal.Signals[end[0]] if end else signal.SIGKILL
    deadly = Deadly(original, when, text, int(number), signal_number)
    is_async = inspect.iscoroutinefunction(original)

    def sync(*args: Any, **kwargs: Any) -> Any:
        return deadly.call(*args, **kwargs)

    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        return await deadly.call_async(*args, **kwargs)

    setattr(owner, name, asynchronous if is_async else sync)


if __name__ == "__main__":
    plant(sys.argv[1])
    target = sys.argv[3]
    sys.argv = [target, *sys.argv[4:]]
    runpy.run_module(target, run_name="__main__", alter_sys=True)
