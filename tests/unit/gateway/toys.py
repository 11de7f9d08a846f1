"""A tiny model, a data set in memory and a plan for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from common.hyperparameters import Bounds, Hyperparameters, Overrides
from common.ids import GatewayId, PlanId, RunId
from common.plan import Participant, Plan, Privacy, Rounds, TaskSpec, Unit
from gateway.charges import DataSetBinding, RunTerms
from tasks.parameters import layout_of
from tasks.task import UnitNotCarried, each_alone

CLINIC = GatewayId("clinic")
RUN = RunId("run-1")
DIGEST = "0" * 64
PLAN = PlanId("1" * 64)
LABELS = ("no", "yes")

torch.set_num_threads(1)


def values(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal values, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(got: Tensor, expected: Tensor, rtol: float = 1.3e-6, atol: float = 1e-5) -> None:
    """Raise unless both are equal within rounding; torch's own takes a second to import."""
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got.detach(), expected.detach(), rtol=rtol, atol=atol)


def model(wide: int = 8) -> nn.Module:
    """Two layers, 3 inputs, `wide` in the middle, 2 classes."""
    net = nn.Sequential(nn.Linear(3, wide), nn.Tanh(), nn.Linear(wide, 2))
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters()):
            parameter.copy_(values(*parameter.shape, seed=number))
    return net


def loss(net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross entropy of each example."""
    inputs, classes = batch
    return nn.functional.cross_entropy(net(inputs), classes, reduction="none")


LAYOUT = layout_of(model())


class Examples:
    """Rows in memory; calls `on_read` before every batch."""

    def __init__(self, count: int = 40, *, seed: int = 1) -> None:
        self.inputs = values(count, 3, seed=seed)
        self.classes = (values(count, seed=seed + 1) > 0).long()
        self.on_read: Callable[[Sequence[int]], None] = lambda _: None
        self.documents: Sequence[Sequence[int]] = ()  # their rows; none: the rows do not say

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        self.on_read(rows)
        index = torch.tensor(rows, dtype=torch.long)
        return self.inputs[index], self.classes[index]

    def units(self, unit: Unit) -> Sequence[Sequence[int]]:
        if unit is Unit.EXAMPLE:
            return each_alone(len(self))
        if unit is not Unit.DOCUMENT or not self.documents:
            raise UnitNotCarried(unit, where="notes.jsonl, line 3", mend="give every line one")
        return self.documents

    def content_digests(self) -> Sequence[bytes]:
        return [row.numpy().tobytes() for row in self.inputs]


class Toy:
    """The task that trains `model` on `Examples`."""

    name = "toy"
    version = "1"

    def digest(self) -> str:
        return DIGEST

    def loss(self, net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return loss(net, batch)


HOW = Hyperparameters(
    learning_rate=0.5, clipping_norm=1.0, noise_multiplier=2.0, sampling_rate=0.5, local_steps=2
)


def plan(
    how: Hyperparameters = HOW,
    *,
    bounds: Bounds | None = None,
    profile: Overrides | None = None,
    rounds: int = 5,
    net: nn.Module | None = None,
    **privacy: object,
) -> Plan:
    """A plan for two gateways whose promise is loose unless `privacy` says otherwise."""
    return Plan(
        name="trial",
        task=TaskSpec(
            name="toy", digest=DIGEST, labels=LABELS, layout=layout_of(net) if net else LAYOUT
        ),
        initial_weights=DIGEST,
        participants=(
            Participant(gateway=CLINIC, declared_units=40),
            Participant(gateway="other", declared_units=100),
        ),
        rounds=Rounds(count=rounds, maximum=2 * rounds, quorum=1, deadline_s=60),
        privacy=Privacy(**({"delta": 1e-5, "target_epsilon": 1e30} | privacy)),
        hyperparameters=how,
        profiles={CLINIC: profile} if profile else {},
        bounds=bounds or Bounds(),
    )


def terms(data: DataSetBinding, run: RunId = RUN, **changes: object) -> RunTerms:
    """A run's terms; `changes` replace them."""
    usual = {"gateway": CLINIC, "plan": PLAN, "effective": HOW, "data": data, "delta": 1e-5}
    return RunTerms(run=run, **(usual | changes))
