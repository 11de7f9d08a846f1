"""Asking an orchestrator something: what takes long is spoken of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from cli.config import operator_config
from common.channel import Client
from common.console import working

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

ResultT = TypeVar("ResultT")
ClientT = TypeVar("ClientT", bound=Client)
WAITING = "waiting for the orchestrator"


def answered(call: Coroutine[Any, Any, ResultT], what: str = WAITING) -> ResultT:
    """Return what a call comes to."""
    with working(what):
        return asyncio.run(call)


def asked(
    kind: type[ClientT], config: Path | None, ask: Callable[[ClientT], Awaitable[ResultT]]
) -> ResultT:
    """Return what `ask` comes to with a client to the orchestrator that the settings name."""
    way = operator_config(config).way

    async def call() -> ResultT:
        async with kind(*way) as client:
            return await ask(client)

    return answered(call())
