"""Asking an orchestrator something: what takes long is spoken of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from common.console import working

if TYPE_CHECKING:
    from collections.abc import Coroutine

ResultT = TypeVar("ResultT")


def answered(
    call: Coroutine[Any, Any, ResultT], what: str = "waiting for the orchestrator"
) -> ResultT:
    """Return what a call comes to."""
    with working(what):
        return asyncio.run(call)
