"""What a chain of records says was spent: every charge once, whichever image it was found in."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.accounting import Mechanism, PrivacyEvent
from common.ids import RunId
from common.plan import Unit
from gateway.records import Facts, Head, Kind, Record, flattened


@dataclass(frozen=True)
class Spent:
    """One release that is paid for."""

    run: RunId
    round: int
    data_set: str
    event: PrivacyEvent
    is_own: bool = True  # booked in this ledger; else taken from another image or stated
    is_assumed: bool = False  # stated by an administrator, its record was lost
    unit: Unit = Unit.EXAMPLE  # what it protects

    @property
    def place(self) -> tuple[RunId, int]:
        """Which round of which run."""
        return self.run, self.round

    @classmethod
    def from_facts(cls, facts: Facts, *, is_own: bool, is_assumed: bool = False) -> Spent:
        """Return what the facts of a charge, or of a stated one, say."""
        event = event_from_facts(facts)
        run, number = RunId(facts["run"]), int(facts["round"])
        # statements named none when it was the only one
        unit = Unit(facts.get("unit", Unit.EXAMPLE))
        return cls(run, number, str(facts["data_set"]), event, is_own, is_assumed, unit)

    def to_facts(self) -> Facts:
        """Return the facts of a charge that is stated, not found."""
        return {
            "run": self.run,
            "round": self.round,
            "data_set": self.data_set,
            "unit": str(self.unit),
            "mechanism": str(self.event.mechanism),
            "noise_multiplier": float(self.event.noise_multiplier),
            "sampling_rate": float(self.event.sampling_rate),
            "steps": int(self.event.steps),
        }


def event_from_facts(facts: Any) -> PrivacyEvent:
    """Return what a charge spends, from its facts."""
    mechanism = Mechanism(facts["mechanism"])
    return PrivacyEvent(
        facts["noise_multiplier"], facts["sampling_rate"], facts["steps"], mechanism
    )


def costs_no_less(one: PrivacyEvent, other: PrivacyEvent) -> bool:
    """Whether `one` spends at least what `other` does at every delta.

    Epsilon falls with the noise and rises with the rate and the number of steps. False where the
    two cannot be compared by these alone.
    """
    return (
        one.mechanism == other.mechanism
        and one.noise_multiplier <= other.noise_multiplier
        and one.sampling_rate >= other.sampling_rate
        and one.steps >= other.steps
    )


def spent_in(records: Iterable[Record]) -> tuple[Spent, ...]:
    """Return every release that `records` answer for, in the order of the chain.

    A charge that two images hold is one release. Two charges of one round are two releases: each
    was written with a mark of its own, for a secret of its own, so each may have left with its own
    noise. A charge that was stated stands for one that was lost: if that is found, or stated again,
    the larger of the two counts, and both where neither is the larger.

    What is found counts as the lost one only if it lies under the countersigned head that the
    statement answered for: then it was charged before, and not by another branch since.
    """
    chain = tuple(records)
    everything = tuple(flattened(chain))
    own = {record.facts for record in chain if record.kind == Kind.CHARGE}
    found = dict.fromkeys(r.facts for r in everything if r.kind == Kind.CHARGE)
    spent = [Spent.from_facts(json.loads(facts), is_own=facts in own) for facts in found]
    by_hash = {record.hash: record for record in everything}
    for merge in (record.content for record in everything if record.kind == Kind.MERGE):
        lost = _under(Head.from_facts(merge["orchestrator"]), by_hash)
        may_be_it = {place for place, facts in enumerate(found) if facts in lost}
        for facts in merge["assumed"]:
            _assume(spent, Spent.from_facts(facts, is_own=False, is_assumed=True), may_be_it)
    return tuple(spent)


def _under(head: Head | None, by_hash: Mapping[str, Record]) -> set[str]:
    """Return the charges that were written before `head`, as far as its branch is known."""
    under: set[str] = set()
    record = None if head is None else by_hash.get(head.hash)
    while record is not None:
        under.add(record.facts)
        record = by_hash.get(record.previous)
    return under


def _assume(spent: list[Spent], stated: Spent, may_be_it: Container[int]) -> None:
    """Put `stated` into `spent`, where it stands for at most one release of its round."""
    for place, each in enumerate(spent):
        if (each.place, each.data_set) != (stated.place, stated.data_set):
            continue
        if not each.is_assumed and place not in may_be_it:
            continue
        if costs_no_less(each.event, stated.event):
            return
        if costs_no_less(stated.event, each.event):
            spent[place] = replace(stated, unit=each.unit)
            return
    spent.append(stated)
