"""What was asked of this gateway: the plans that were offered, and what it answered.

Kept in a file of the state folder, so that a restart forgets nothing. It is for people to read:
what is charged stands in the ledger, and no decision is made by what is written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from common.accounting import rounded_up
from common.disk import SYSTEM_DISK
from common.web.values import VALUE_NAMES, values_in_force
from gateway.policy import Accepted

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from common.disk import Disk
    from gateway.watching import Answered

log = structlog.get_logger()

FILE = "asked.json"
KEPT = 50  # plans: the oldest go


class Given(BaseModel):
    """A hyperparameter in force, and where it came from."""

    model_config = ConfigDict(frozen=True)

    name: str
    text: str
    source: str  # default, profile or override


class AskedPlan(BaseModel):
    """A plan, and what this gateway said to it."""

    model_config = ConfigDict(frozen=True)

    run: str
    plan_digest: str
    at: str  # UTC, for people
    signer: str  # empty: nobody whose plans are obeyed
    is_accepted: bool
    why: str  # the sentence of a refusal; the orchestrator gets a word of it
    rounds: int  # 0 where the plan was not read
    unit: str
    promise: str  # epsilon once all rounds are trained, with everything charged before
    values: tuple[Given, ...]  # in force; none where it was refused


class _File(BaseModel):
    plans: tuple[AskedPlan, ...]


class Asked:
    """The newest plans, the newest first."""

    def __init__(self, state: Path, disk: Disk = SYSTEM_DISK) -> None:
        """Read what an older process has kept; a file that is damaged is begun anew."""
        self._path = state / FILE
        self._disk = disk
        self.plans: tuple[AskedPlan, ...] = ()
        try:
            self.plans = _File.model_validate_json(disk.read(self._path)).plans
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            log.warning("asked_unreadable", why=f"{self._path} is begun anew: {error}")

    def note(self, answered: Answered, gateway: str, now: datetime) -> None:
        """Keep an answer in place of an older one to the same plan; a disk that fails is logged."""
        fresh = _asked(answered, gateway, now)
        others = [each for each in self.plans if (each.run, each.plan_digest) != _key(fresh)]
        self.plans = (fresh, *others)[:KEPT]
        part = self._path.with_suffix(".part")
        try:
            with self._disk.create(part) as file:
                file.write(_File(plans=self.plans).model_dump_json().encode(), 0)
                file.sync()
            self._disk.rename(part, self._path)
        except OSError as error:
            log.warning("asked_not_kept", why=str(error))


def _key(plan: AskedPlan) -> tuple[str, str]:
    return plan.run, plan.plan_digest


def _asked(answered: Answered, gateway: str, now: datetime) -> AskedPlan:
    verdict, plan = answered.verdict, answered.plan
    is_accepted = isinstance(verdict, Accepted)
    promise = ""
    values: tuple[Given, ...] = ()
    if isinstance(verdict, Accepted) and plan is not None:
        found = values_in_force(plan, gateway, verdict.effective)
        values = tuple(
            Given(name=name, text=each.text, source=each.source)
            for name, each in zip(VALUE_NAMES, found, strict=True)
        )
        spent = verdict.projected
        promise = rounded_up(spent.pld) if spent else "none: the noise is seeded"
    return AskedPlan(
        run=answered.run,
        plan_digest=answered.plan_digest,
        at=f"{now:%Y-%m-%d %H:%M:%S}",
        signer=answered.signer,
        is_accepted=is_accepted,
        why="" if isinstance(verdict, Accepted) else verdict.sentence,
        rounds=plan.rounds.count if plan else 0,
        unit=str(plan.privacy.unit) if plan else "",
        promise=promise,
        values=values,
    )
