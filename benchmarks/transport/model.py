"""A model of a given size with a transformer's tensors, and what the gateways make of it.

Each gateway sends a constant of its own for a difference, rounded by a key of its own as the plan's
wire format has it, so that the average after any number of rounds is known to the last bit: each
share of a constant is rounded to a multiple of 2^-40, as in `orchestrator.aggregation`, and added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from common.hyperparameters import Hyperparameters
from common.plan import (
    Participant,
    Plan,
    Privacy,
    Rounds,
    ServerOptimizer,
    TaskSpec,
    Weighting,
)
from common.randomness import RandomStream
from common.update_form import Update, UpdateForm
from common.weights import FLOAT32_BYTES, Layout, Weights
from common.wire_formats import WireFormat
from orchestrator.aggregation import blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIB = 1 << 20
TASK = "constant"
TASK_DIGEST = "c" * 64
HYPERPARAMETERS = Hyperparameters(
    learning_rate=0.1, clipping_norm=1.0, noise_multiplier=1.0, sampling_rate=0.1, local_steps=1
)
BLOCKS = 12
DEADLINE_S = 600.0


def layout(mib: int) -> Layout:
    """Return a transformer's tensors, `mib` MiB of float32 in all: blocks, then an embedding."""
    values = mib * MIB // FLOAT32_BYTES
    width = max(16, int((0.6 * values / (12 * BLOCKS)) ** 0.5) // 16 * 16)
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(BLOCKS):
        shapes |= {
            f"block.{block}.attention.in.weight": (3 * width, width),
            f"block.{block}.attention.in.bias": (3 * width,),
            f"block.{block}.attention.out.weight": (width, width),
            f"block.{block}.norm.weight": (width,),
            f"block.{block}.wide.weight": (4 * width, width),
            f"block.{block}.narrow.weight": (width, 4 * width),
        }
    rest = values - sum(int(np.prod(shape)) for shape in shapes.values())
    words, remainder = divmod(rest, width)
    shapes |= {"embedding.weight": (words, width), "head.bias": (remainder,)}
    return Layout.of(shapes)


def initial(mib: int, seed: int = 1) -> Weights:
    """Return weights that a run starts from; the same ones for the same seed."""
    shape, generator = layout(mib), np.random.default_rng(seed)
    room = np.empty(shape.byte_length, dtype=np.uint8)  # a second copy of 2.5 GiB would not fit
    begin = len(shape.header)
    room[:begin] = np.frombuffer(shape.header, dtype=np.uint8)
    generator.standard_normal(dtype=np.float32, out=room[begin:].view("<f4"))
    return Weights.from_bytes(room.data, shape)


def constant(gateway: str) -> float:
    """Return what a gateway, named g1, g2 …, adds to each weight in a round."""
    return int(gateway.removeprefix("g")) * 2.0**-12


def update_of(gateway: str, form: UpdateForm) -> Update:
    """Return what a gateway sends in each round; written anew each time, as a real one must."""
    if form.wire_format is WireFormat.FLOAT32:
        update = Update.with_room(form)
        update.encoded.view("<f4").fill(constant(gateway))
        return update
    values = np.full(form.size, constant(gateway), dtype=np.float32)
    return Update.of(form, values, RandomStream(blake3(gateway.encode()).digest()))


def after(
    weights: Weights,
    gateways: Sequence[str],
    rounds: int,
    wire_format: WireFormat = WireFormat.FLOAT32,
) -> Weights:
    """Return what so many rounds make of `weights`."""
    mean = _mean(UpdateForm(weights.layout, wire_format), gateways)
    values = weights.values.copy()
    for block in blocks(values.size):
        step = mean if mean.size == 1 else mean[block]
        for _ in range(rounds):
            values[block] = values[block] + step
    return Weights(weights.layout, values)


def _mean(form: UpdateForm, gateways: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean of what was decoded: each share rounded to steps of 2^-40, then their sum.

    One value for all where nothing is rounded at random.
    """
    if form.wire_format is WireFormat.FLOAT32:
        form = UpdateForm(Layout.of({"value": (1,)}))
    total = np.zeros(form.size)
    for gateway in gateways:
        decoded = update_of(gateway, form).values.astype(np.float64)
        total += np.rint(decoded * (1 / len(gateways)) * 2.0**40)  # whole, below 2^53
    return total * 2.0**-40


def plan(
    weights: Weights,
    gateways: Sequence[str],
    rounds: int,
    wire_format: WireFormat = WireFormat.FLOAT32,
) -> Plan:
    """Return the plan of a run over all `gateways`."""
    return Plan(
        name="transport",
        task=TaskSpec(name=TASK, digest=TASK_DIGEST, labels=("value",), layout=weights.layout),
        initial_weights=weights.digest,
        participants=tuple(Participant(gateway=name, declared_units=100) for name in gateways),
        weighting=Weighting.EQUAL,
        rounds=Rounds(count=rounds, maximum=rounds, quorum=len(gateways), deadline_s=DEADLINE_S),
        privacy=Privacy(delta=1e-5, target_epsilon=50.0),
        hyperparameters=HYPERPARAMETERS,
        server=ServerOptimizer(learning_rate=1.0),
        wire_format=wire_format,
    )
