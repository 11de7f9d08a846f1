"""A task without learning: updates that follow from a round's noise key, and cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from unittest.mock import patch

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn

import gateway.gateway
import gateway.local_round
from common.bad_updates import PLAIN, NormMode, UpdateNorm
from common.hyperparameters import Hyperparameters
from common.plan import Participant, Plan, Privacy, Rounds, ServerOptimizer, TaskSpec, Unit
from common.weights import Weights
from common.wire_formats import WireFormat
from gateway.charges import ChargedRound
from gateway.local_round import BegunRun, TrainedRound
from tasks.parameters import layout_of
from tasks.task import Batch, DataConfig, DataReport, each_alone

WIDTH = 23
LABELS = ("no", "yes")
UNITS = (100, 200, 350, 120, 90)  # that gateways declare
HYPERPARAMETERS = Hyperparameters(
    learning_rate=0.1, clipping_norm=1.0, noise_multiplier=8.0, sampling_rate=0.1, local_steps=1
)
NORMS = {
    5.0: PLAIN,
    20.0: UpdateNorm(),
    40.0: UpdateNorm(mode=NormMode.FIXED, bound=170.0),
    90.0: UpdateNorm(),
}
review = gateway.gateway.review
VERDICTS = {}  # of plans that differ in nothing that an accountant reads


@dataclass(frozen=True)
class TaskLabels:
    """The [task] table of a gateway that takes the plan's labels."""

    labels: tuple[str, ...] = ()


class Rows:
    """A few examples; nobody looks at them."""

    def __init__(self, site: str) -> None:
        self._site = site

    def __len__(self) -> int:
        return 4

    def batch(self, rows) -> Batch:
        return (torch.zeros(len(rows), WIDTH),)

    def units(self, unit: Unit):
        return each_alone(len(self))

    def content_digests(self) -> list[bytes]:
        return [blake3(f"{self._site}/{row}".encode()).digest() for row in range(len(self))]


class NoTask:
    """A model of WIDTH + 1 times two values."""

    name = "none"
    version = "1"

    def digest(self) -> str:
        return "7" * 64

    def build_model(self, labels) -> nn.Module:
        return MODEL

    def loss(self, model, batch) -> Tensor:
        raise NotImplementedError

    def specimens(self, labels) -> Batch:
        return (torch.zeros(1, WIDTH),)

    def check(self, data: DataConfig, labels) -> DataReport:
        return DataReport(data.source, data.split, 4, 0, 0)

    def read(self, data: DataConfig, labels, cache: Path) -> Rows:
        return Rows(data.site or "")


MODEL = nn.Linear(WIDTH, len(LABELS))
LAYOUT = layout_of(MODEL)
INITIAL = Weights(LAYOUT, np.linspace(-1.0, 1.0, LAYOUT.size).astype(np.float32))
TASK = NoTask()


def plan_of(
    gateways: dict[str, int],
    rounds: Rounds,
    server: ServerOptimizer,
    wire_format: WireFormat,
    update_norm: UpdateNorm = PLAIN,
) -> Plan:
    """Return a plan for gateways by name, with the units that each declares."""
    return Plan(
        name="none",
        task=TaskSpec(name=TASK.name, digest=TASK.digest(), labels=LABELS, layout=LAYOUT),
        initial_weights=INITIAL.digest,
        participants=tuple(
            Participant(gateway=name, declared_units=units) for name, units in gateways.items()
        ),
        rounds=rounds,
        privacy=Privacy(delta=1e-5, target_epsilon=1000.0),
        hyperparameters=HYPERPARAMETERS,
        server=server,
        wire_format=wire_format,
        update_norm=update_norm,
    )


def drawn_plan(draw: Random, names: Sequence[str], wire_format: WireFormat) -> Plan:
    """Return a plan for some gateways, of which all else that matters to its rounds is drawn."""
    count = draw.randint(1, 3)
    rounds = Rounds(
        count=count,
        maximum=count + 60,
        quorum=draw.randint(2, len(names)),
        deadline_s=draw.choice((5.0, 20.0, 40.0, 90.0)),
    )
    server = ServerOptimizer(
        learning_rate=draw.choice((1.0, 0.5)),
        momentum=draw.choice((0.0, 0.9)),
        tail_average=draw.choice((0.0, 0.7)),
    )
    norm = NORMS[rounds.deadline_s]  # not drawn: what a seed stands for would be another thing
    return plan_of(dict(zip(names, UNITS, strict=False)), rounds, server, wire_format, norm)


def difference(charged: ChargedRound) -> np.ndarray:
    """Return what a round's secret leads to, and nothing else does; some values are awkward."""
    seed = int.from_bytes(charged.noise.key[:8], "little")
    generator = np.random.default_rng(seed)
    values = generator.normal(scale=0.1, size=LAYOUT.size).astype(np.float32)
    large = generator.choice((-700.0, -90.0))  # of which some are clipped
    values[:3] = (1e-9, 3.0 * 2.0**-41, large + generator.normal())  # no two alike, even in int8
    return values


@contextmanager
def without_learning(
    trained: Callable[[BegunRun, ChargedRound, np.ndarray], None],
) -> Iterator[None]:
    """Have gateways compute `difference` inside; `trained` hears of each time that data are read.

    Plans are judged by the accountants as ever; the same question is asked of them once.
    """

    def train(run: BegunRun, gradients, start: Tensor, charged: ChargedRound) -> TrainedRound:
        values = difference(charged)
        trained(run, charged, values)
        return TrainedRound(torch.from_numpy(values), None)

    with (
        patch.object(gateway.local_round, "train", train),
        patch.object(gateway.gateway, "gradients_of", lambda site: None),
        patch.object(gateway.gateway, "review", _judged),
    ):
        yield


def _judged(plan: Plan, name: str, overrides, policy, spent):
    question = (plan.rounds.count, name, tuple(spent))
    if question not in VERDICTS:
        VERDICTS[question] = review(plan, name, overrides, policy, spent)
    return VERDICTS[question]
