"""The ledger as the page shows it: read beside the gateway that writes it, when it has grown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import FederationError
from gateway.ledger import epsilon_of
from gateway.ledger_desk import Desk

if TYPE_CHECKING:
    from common.accounting import Epsilon
    from common.plan import Unit
    from common.protocol import LedgerHead
    from common.randomness import InsecureSeed
    from gateway.charges import BookedCharge
    from gateway.config import GatewayConfig
    from gateway.spending import Spent

SHOWN = 30  # charges, the newest


@dataclass(frozen=True)
class Account:
    """What was charged on the gateway's data set."""

    data_set: str
    budget: float
    delta: float  # at which the budget holds
    spent: Epsilon | None  # None where the noise is seeded
    units: tuple[Unit, ...]
    count: int  # of charges, and of what was merged
    newest: tuple[BookedCharge, ...]
    merged: tuple[Spent, ...]
    head: LedgerHead
    problem: str = ""  # why training is refused

    @property
    def share(self) -> float:
        """How much of the budget is spent, at most 1; by Renyi, as the next plan is judged."""
        return min(1.0, self.spent.rdp / self.budget) if self.spent else 0.0


class Ledgers:
    """Reads the ledger, and keeps what it read for as long as nothing has happened since."""

    def __init__(self, settings: GatewayConfig, seed: InsecureSeed | None) -> None:
        self._settings = settings
        self._desk = Desk(settings.state, seed)
        self._kept: tuple[int, Account] | None = None
        self._reading = asyncio.Lock()

    async def account(self, changes: int) -> Account:
        """Return the ledger as it stands after so many `changes` of the gateway's work.

        Raises:
            LedgerUnreadable: it cannot be read now.
        """
        async with self._reading:
            if self._kept is None or self._kept[0] != changes:
                self._kept = changes, await asyncio.to_thread(self._read)
            return self._kept[1]

    def _read(self) -> Account:
        name, policy = self._settings.data_set, self._settings.policy
        known = self._kept[1] if self._kept else None
        with self._desk.ledger() as ledger:
            charges = [each for each in ledger.charges() if each.terms.data.name == name]
            merged = tuple(s for s in ledger.spent() if s.data_set == name and not s.is_own)
            problem = ""
            try:
                ledger.check_standing()
            except FederationError as error:
                problem = str(error)
            is_same = known is not None and known.count == len(charges) + len(merged)
            return Account(
                data_set=name,
                budget=policy.epsilon_budget,
                delta=policy.delta_ceiling,
                spent=known.spent
                if known is not None and is_same
                else epsilon_of(ledger, name, policy.delta_ceiling),
                units=tuple(sorted(ledger.units_charged(name))),
                count=len(charges) + len(merged),
                newest=tuple(reversed(charges[-SHOWN:])),
                merged=merged,
                head=ledger.head,
                problem=problem,
            )
