"""What the journal may say after what it has said, and which models it must come to."""

from __future__ import annotations

import math
import re
import statistics
import struct
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from common.plan import Plan
from common.weights import Weights
from tests.simulation.history import Committed
from tests.simulation.training import INITIAL, LAYOUT


class Model:
    """The published weights as they must be, in exact integers and in floats one by one.

    Source:
        McMahan et al. 2017, Algorithm 1, with the sum in steps of 2^-40.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.weights = [float(x) for x in INITIAL.values]
        self._momentum: list[float] | None = None
        self._published: list[list[float]] = []

    def publish(
        self,
        members: dict[str, tuple[float, ...]],
        invited: list[str],
        factors: dict[str, float],
    ) -> str:
        """Take one round's step; return the digest of the weights that it leads to."""
        units = {p.gateway: p.declared_units for p in self._plan.participants}
        total, present = sum(units[g] for g in invited), sum(units[g] for g in members)
        sums = [0] * LAYOUT.size
        for name, values in members.items():
            share = units[name] / total * factors[name]
            for place, value in enumerate(values):
                sums[place] += round(Fraction(value * share) * 2**40)
        factor = total / present * 2.0**-40
        step = [each * factor for each in sums]
        server, before = self._plan.server, self._momentum
        if before is not None:
            step = [server.momentum * b + d for b, d in zip(before, step, strict=True)]
        self._momentum = step if server.momentum else None
        rate = server.learning_rate
        self.weights = [single(x + rate * m) for x, m in zip(self.weights, step, strict=True)]
        self._published.append(self.weights)
        return digest_of(self.weights)

    def final(self) -> str:
        """Return the digest of the model that the published rounds come to."""
        count = self._plan.rounds.count
        length = max(1, round(self._plan.server.tail_average * count))
        if length == 1:
            return digest_of(self.weights)
        tail = self._published[-length:]
        return digest_of([single(sum(each) / length) for each in zip(*tail, strict=True)])


def single(value: float) -> float:
    """Return the float32 nearest to a value."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def digest_of(values: list[float]) -> str:
    return Weights(LAYOUT, np.array(values, dtype=np.float32)).digest


class Register:
    """What the journal may say after what it has said: one run, read row by row."""

    def __init__(self, plan: Plan, initial: str, violated: Callable[[str, str], None]) -> None:
        self._plan = plan
        self._violated = violated
        self.model = Model(plan)
        self.updates: dict[str, tuple[float, ...]] = {}  # every one that was trained, by digest
        self.parent = initial
        self.published = 0
        self.is_open = False  # for updates
        self.is_closing = False  # nothing more is taken; its weights come next
        self.end = self.why = ""
        self.invited: list[str] = []
        self.gone: set[str] = set()  # declined, lost, or refused
        self.aside: set[str] = set()  # in quarantine
        self.bound: float | None = None
        self.norms: dict[str, float] = {}  # as they were said of the round
        self.counted: dict[str, float] = {}  # newest norms in published rounds, at most the bound
        self.received: dict[str, str] = {}
        self.awaited: dict[str, str] = {}
        self._last: Committed | None = None

    def read(self, row: Committed) -> None:
        """Take the next row."""
        last = self._last
        if last is not None:
            if row.sequence != last.sequence + 1:
                self._violated("I4", f"row {row.sequence} follows row {last.sequence}")
            if row.epoch < last.epoch:
                self._violated("I8", f"epoch {row.epoch} writes after epoch {last.epoch}")
            if (row.epoch == last.epoch) != (row.writer == last.writer):
                self._violated("I8", f"{row.writer} and {last.writer} share epoch {row.epoch}")
        self._last = row
        reader = getattr(self, re.sub(r"(?=[A-Z])", "_", row.kind).lower(), None)
        if reader is not None:
            reader(row, row.payload)

    def _round_opened(self, row: Committed, said) -> None:
        if self.is_open or self.is_closing or self.end:
            self._violated("I4", f"round {said['number']} opens while another is open")
        if said["number"] != self.published + 1 or said["parent"] != self.parent:
            self._violated("I4", f"round {said['number']} does not follow what was published")
        self.is_open, self.invited = True, said["invited"]
        self.received, self.awaited, self.gone = {}, {}, set()
        self.aside, self.norms, self.bound = set(said["quarantined"]), {}, said["norm_bound"]
        if self.bound != self._bound():
            self._violated("I3", f"the bound is {self.bound}, the journal says {self._bound()}")

    def _update_accepted(self, row: Committed, said) -> None:
        gateway, digest = said["gateway"], said["digest"]
        if not self.is_open or gateway not in self.invited:
            self._violated("I5", f"an update of {gateway} changes a round that is not open")
        if gateway in self.aside:
            self._violated("I5", f"the update of {gateway} counts, which is in quarantine")
        norm = said["norm"]
        if self.norms.setdefault(gateway, norm) != norm:
            self._violated("I3", f"{gateway} has another norm than before the restart")
        if self.bound is not None and norm > 10 * self.bound:
            self._violated("I5", f"the update of {gateway} counts, whose norm is {norm}")
        if digest in ({**self.received, **self.awaited} | {gateway: ""}).values():
            self._violated("I5", f"the update of {gateway} counts, which is another's")
        if gateway in self.received:
            self._violated("I2", f"the update of {gateway} is counted twice")
        if self.awaited.pop(gateway, digest) != digest:
            self._violated("I1", f"{gateway} sends another update than before the restart")
        self.received[gateway] = digest
        self._settle()

    def _restarted(self, row: Committed, said) -> None:
        self.awaited |= self.received
        self.received = {}
        self.is_open, self.is_closing = self.is_open or self.is_closing, False

    def _update_lost(self, row: Committed, said) -> None:
        if self.awaited.pop(said["gateway"], None) is None:
            self._violated("I1", f"an update of {said['gateway']} is lost that was not awaited")
        self._leave(said["gateway"])

    def _gateway_declined(self, row: Committed, said) -> None:
        if said["gateway"] in self.received or not self.is_open:
            self._violated("I5", f"{said['gateway']} declines a round that it is done with")
        self.awaited.pop(said["gateway"], None)
        self._leave(said["gateway"])

    def _update_refused(self, row: Committed, said) -> None:
        if said["gateway"] in self.received or not self.is_open:
            self._violated("I5", f"an update of {said['gateway']} is refused that was counted")
        self._leave(said["gateway"])

    def _bound(self) -> float | None:
        """Return what the bound of a round that opens now must be."""
        how = self._plan.update_norm
        if how.mode == "median":
            return 3.0 * statistics.median(self.counted.values()) if self.counted else None
        return how.bound

    def _factor(self, gateway: str) -> float:
        norm = self.norms[gateway]
        return 1.0 if self.bound is None or norm <= self.bound else self.bound / norm

    def _check_norms(self, values: dict[str, tuple[float, ...]]) -> None:
        for name, each in values.items():
            exact = math.sqrt(math.fsum(x * x for x in each))
            if abs(self.norms[name] - exact) > 2.0**-23 * exact:
                self._violated("I3", f"{name} has norm {exact}, the journal {self.norms[name]}")

    def _round_abandoned(self, row: Committed, said) -> None:
        self._violated("I9", f"the weights were not finite: {said['reason']}")

    def _deadline_passed(self, row: Committed, said) -> None:
        if self.is_open:
            self.is_open = False
            self.is_closing = len(self.received) >= self._plan.rounds.quorum
        if self.is_closing and self.awaited:
            self._violated("I4", f"{sorted(self.awaited)} are neither members nor lost")

    def _leave(self, gateway: str) -> None:
        self.gone.add(gateway)
        self._settle()

    def _settle(self) -> None:
        if len(set(self.invited) - self.aside - self.gone) < self._plan.rounds.quorum:
            self.is_open = False
        elif self.gone | self.received.keys() >= set(self.invited) - self.aside:
            self.is_open, self.is_closing = False, True

    def _round_published(self, row: Committed, said) -> None:
        members = said["members"]
        if not self.is_closing:
            self._violated("I4", f"round {self.published + 1} is published and was not closed")
        if set(members) != set(self.received) or self.awaited:
            self._violated("I1", f"{members} are members, {sorted(self.received)} were counted")
        if len(members) < self._plan.rounds.quorum or len(set(members)) != len(members):
            self._violated("I4", f"{members} are no quorum")
        self.is_closing, self.published, self.parent = False, self.published + 1, said["weights"]
        there = {name: self.received[name] for name in members if name in self.received}
        if foreign := [name for name, digest in there.items() if digest not in self.updates]:
            self._violated("I5", f"nobody trained the update of {foreign}")
            return
        values = {name: self.updates[digest] for name, digest in there.items()}
        self._check_norms(values)
        factors = {name: self._factor(name) for name in values}
        if values and self.model.publish(values, self.invited, factors) != said["weights"]:
            self._violated("I3", f"round {self.published} is not the mean of {members}")
        self.counted |= {name: min(self.norms[name], self.bound or math.inf) for name in values}

    def _run_completed(self, row: Committed, said) -> None:
        self.end = row.kind
        if self.published != self._plan.rounds.count or self.model.final() != said["model"]:
            self._violated("I3", "the model is not what the rounds come to")

    def _run_failed(self, row: Committed, said) -> None:
        self.end, self.why = row.kind, said["reason"]
