"""What the demo shows while it runs, on standard error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.model_card import charged_to
from common.accounting import COARSE_INTERVAL, PLD_INTERVAL, epsilon_pld, rounded_up
from common.console import ERRORS, Pace

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from common.clock import Clock
    from common.plan import Plan
    from common.protocol import GatewayStatus, RunStatus


class Progress:
    """One screen that changes on a terminal; a line for every published round elsewhere."""

    def __init__(self, clock: Clock) -> None:
        """Show nothing yet."""
        self._clock = clock
        self._live = Live(console=ERRORS, auto_refresh=False, transient=True)
        self._pace = Pace()
        self._shown = 0

    def __enter__(self) -> Self:
        if ERRORS.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if ERRORS.is_terminal:
            self._live.stop()

    def phase(self, text: str) -> None:
        """Say what is being done now."""
        ERRORS.print(text, markup=False)

    async def show(self, status: RunStatus, plan: Plan) -> None:
        """Show a run's state: rounds, gateways, F1 on the dev split, epsilon, time left."""
        left = ""
        if status.published_round:  # the first round is no measure: data are read before it
            left = self._pace.left(status.published_round, status.rounds, self._clock.now())
        spent = await asyncio.to_thread(_largest_epsilon, status, plan)
        if ERRORS.is_terminal:
            self._live.update(self._screen(status, spent, left), refresh=True)
            return
        if status.published_round > self._shown:
            ERRORS.print(self._line(status, spent), markup=False)
            self._shown = status.published_round

    def _line(self, status: RunStatus, spent: str) -> str:
        inside = sum(gateway.connected for gateway in status.gateways)
        return (
            f"round {status.published_round}/{status.rounds} · gateways {inside} in, "
            f"{len(status.gateways) - inside} out · F1 (dev) {_f1(status)} · epsilon {spent}"
        )

    def _screen(self, status: RunStatus, spent: str, left: str) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(Text(self._line(status, spent)))
        table.add_row(Text(f"about {left or '?'} left"))
        for gateway in status.gateways:
            state = "in " if gateway.connected else "out"
            done = "answered" if gateway.answered else "working"
            table.add_row(Text(f"  {gateway.gateway:<16} {state}  {done}"))
        return table


def _largest_epsilon(status: RunStatus, plan: Plan) -> str:
    """Return it with two digits; wide buckets leave time to train, and the end is exact."""
    spent = [
        epsilon_pld(charged, plan.privacy.delta, interval=_interval(gateway, plan))
        for gateway in status.gateways
        if (charged := charged_to(gateway)) is not None
    ]
    return rounded_up(max(spent), 2) if spent else "none"


def _interval(gateway: GatewayStatus, plan: Plan) -> float:
    return PLD_INTERVAL if gateway.rounds_invited >= plan.rounds.count else COARSE_INTERVAL


def _f1(status: RunStatus) -> str:
    dev = [scores for scores in status.scores if scores.split == "dev"]
    return f"{100 * max(dev, key=lambda scores: scores.round).f1:.1f}" if dev else "…"
