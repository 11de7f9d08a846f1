"""A real model that twenty sites train, some of them badly: digits, softmax regression.

The orchestrator's own rules bound, refuse, score and add the updates: what is played here is the
sites alone. As in a federation without privacy, so that what is seen is the attack's doing.

Source:
    The data: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", which
    scikit-learn has; unlike shares of the classes by Hsu et al. 2019, "Measuring the Effects of
    Non-Identical Data Distribution for Federated Visual Classification".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from common.bad_updates import Reputation, UpdateNorm, UpdateRefusalReason
from common.ids import GatewayId
from common.plan import Rounds, ServerOptimizer, TaskSpec, Weighting
from common.weights import Layout
from orchestrator.aggregation import Accumulator
from orchestrator.events import (
    DeadlinePassed,
    PlanAccepted,
    RoundPublished,
    RunStarted,
    UpdateAccepted,
    UpdateRefused,
    UpdateSetAside,
)
from orchestrator.norms import NormTooLarge, check_norm, factor
from orchestrator.rounds import Phase
from orchestrator.runs import Run, advance_run, begin
from orchestrator.selection import Presence
from orchestrator.steps import next_step
from tests.averaging import InMemory, mean_of
from tests.fakes import EFFECTIVE, TASK_DIGEST, plan_of

SITES = tuple(GatewayId(f"site-{n:02}") for n in range(20))
BAD = SITES[:4]  # one in five
CLASSES, PIXELS = 10, 64
LAYOUT = Layout.of({"bias": (CLASSES,), "weight": (PIXELS, CLASSES)})
EPOCHS, BATCH, RATE = 2, 16, 0.3
Attack = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]

ATTACKS: dict[str, Attack] = {
    "sign flip": lambda update, _: -update,
    "ten times, flipped": lambda update, _: -10.0 * update,
    "three times, flipped": lambda update, _: -3.0 * update,
    "ten times": lambda update, _: 10.0 * update,
    "noise": lambda update, draw: draw.normal(scale=1.0, size=update.size),
}


@dataclass(frozen=True)
class Data:
    """Examples and their classes."""

    images: NDArray[np.float64]  # (rows, PIXELS), 0 to 1
    classes: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[np.int64]) -> Data:
        return Data(self.images[rows], self.classes[rows])


def split(seed: int, concentration: float) -> tuple[dict[GatewayId, Data], Data]:
    """Return each site's examples, of unlike classes, and those that test the model."""
    draw, digits = np.random.default_rng(seed), load_digits()
    everything = Data(digits.data / 16.0, digits.target)
    order = draw.permutation(len(everything.classes))
    test, rest = order[:400], order[400:]
    rows: dict[GatewayId, list[int]] = {site: [] for site in SITES}
    for label in range(CLASSES):
        of_class = rest[everything.classes[rest] == label]
        shares = draw.dirichlet([concentration] * len(SITES))
        cuts = (np.cumsum(shares)[:-1] * of_class.size).astype(int)
        for site, part in zip(SITES, np.split(of_class, cuts), strict=True):
            rows[site].extend(part)
    each = {site: everything[np.array(found or rest[:1])] for site, found in rows.items()}
    return each, everything[test]


def probabilities(values: NDArray, images: NDArray) -> NDArray[np.float64]:
    scores = images @ values[CLASSES:].reshape(PIXELS, CLASSES) + values[:CLASSES]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def accuracy(values: NDArray, data: Data) -> float:
    return float(np.mean(probabilities(values, data.images).argmax(axis=1) == data.classes))


def trained(values: NDArray, data: Data, draw: np.random.Generator) -> NDArray[np.float32]:
    """Return what a site sends: the difference that some epochs over its data make."""
    local = values.astype(np.float64).copy()
    for _ in range(EPOCHS):
        order = draw.permutation(len(data.classes))
        for start in range(0, order.size, BATCH):
            batch = data[order[start : start + BATCH]]
            error = probabilities(local, batch.images)
            error[np.arange(len(batch.classes)), batch.classes] -= 1.0
            error /= len(batch.classes)
            gradient = np.concatenate([error.sum(axis=0), (batch.images.T @ error).ravel()])
            local -= RATE * gradient
    return (local - values).astype(np.float32)


@dataclass
class Learned:
    """What a run came to."""

    accuracy: float
    run: Run
    in_quarantine: int = 0  # gateway-rounds
    of_honest: int = 0  # of these, of honest sites
    refused: dict[str, int] = field(default_factory=dict)


def learned(
    attack: Attack | None,
    how: UpdateNorm,
    *,
    rounds: int,
    seed: int = 0,
    concentration: float = 1.0,
    reputation: Reputation | None = None,
) -> Learned:
    """Train under the rules of the orchestrator, site by site, round by round."""
    sites, test = split(seed, concentration)
    draw = np.random.default_rng(seed + 1)
    values = np.zeros(LAYOUT.size, dtype=np.float32)
    found = Learned(0.0, _begun(how, rounds, reputation))
    for _ in range(rounds):
        opening = next_step(found.run, Presence(frozenset(SITES)), is_overdue=False)
        run = advance_run(found.run, opening)
        total, aside = Accumulator(LAYOUT.size, len(SITES)), run.round.quarantined
        found.in_quarantine += len(aside)
        found.of_honest += len(aside - set(BAD if attack else ()))
        for site in SITES:
            update = trained(values, sites[site], draw)
            if attack is not None and site in BAD:
                update = attack(update, draw).astype(np.float32)
            run = _received(run, total, site, update)
        if run.round.phase is Phase.COLLECTING:
            run = advance_run(run, DeadlinePassed())
        values = (values + mean_of(total)).astype(np.float32)
        members = tuple(sorted(run.round.received))
        found.run = advance_run(run, RoundPublished("1" * 64, None, members))
    found.accuracy = accuracy(values, test)
    return found


def _begun(how: UpdateNorm, rounds: int, reputation: Reputation | None) -> Run:
    plan = plan_of(
        *SITES,
        task=TaskSpec(name="toy", digest=TASK_DIGEST, labels=("x",), layout=LAYOUT),
        rounds=Rounds(count=rounds, maximum=rounds, quorum=1, deadline_s=60.0),
        weighting=Weighting.EQUAL,
        server=ServerOptimizer(),
        update_norm=how,
        reputation=reputation,
    )
    accepted = (PlanAccepted(site, EFFECTIVE, 1.0) for site in SITES)
    return reduce(advance_run, (RunStarted(60.0), *accepted), begin("r", plan, "2" * 64))


def _received(run: Run, total: Accumulator, site: GatewayId, update: NDArray[np.float32]) -> Run:
    """Do with an update what the orchestrator does."""
    state, digest = run.round, f"{site} {run.round.number}"
    norm = float(np.linalg.norm(update.astype(np.float64)))
    if state.phase is not Phase.COLLECTING:
        return run  # all of the others have answered
    try:
        check_norm(norm, state.norm_bound)
    except NormTooLarge:
        return advance_run(run, UpdateRefused(site, digest, UpdateRefusalReason.NORM, 1.0))
    if site in state.quarantined:
        return advance_run(run, UpdateSetAside(site, digest, 1.0, norm))
    total.add(site, InMemory(update), 1, factor(norm, state.norm_bound))
    return advance_run(run, UpdateAccepted(site, digest, 1.0, norm))
