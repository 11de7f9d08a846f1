"""What noise and update cost for each parameter, beside noise that is not fit for privacy."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.private_step.methods import RATE
from common.clock import SystemClock
from common.randomness import RandomStream, system_secret
from private_step.noise import noised_mean

PARAMETERS = 10_000_000
BYTES_EACH = 6  # of randomness that `private_step.noise` takes for a parameter
ROUNDS = 5
DEVIATION = 1.0
EXPECTED_BATCH_SIZE = 64


def noise_costs(threads: int, parameters: int = PARAMETERS) -> list[dict[str, Any]]:
    """Return the best time of each way, in nanoseconds for each parameter."""
    torch.set_num_threads(threads)
    clock = SystemClock()
    total = torch.zeros(parameters)
    ways: dict[str, Callable[[], object]] = {
        "fedgate": _fedgate(total),
        "torch_normal": _torch_normal(total),
        "os_urandom": lambda: os.urandom(BYTES_EACH * parameters),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):  # in turn, so that what else the machine does meets all alike
        for name, run in ways.items():
            start = clock.now()
            run()
            took[name].append(clock.now() - start)
    return [
        {"method": name, "parameters": parameters, "ns_per_parameter": _ns(times, parameters)}
        for name, times in took.items()
    ]


def _ns(times: list[float], parameters: int) -> float:
    return round(1e9 * min(times[1:]) / parameters, 3)  # the first one warms up


def _fedgate(total: Tensor) -> Callable[[], object]:
    """Noise and update as in `PrivateStep.step`."""
    flat = nn.Parameter(torch.zeros_like(total))
    optimizer = torch.optim.SGD([flat], lr=RATE)
    stream = RandomStream(system_secret())

    def run() -> None:
        flat.grad = noised_mean(total, DEVIATION, EXPECTED_BATCH_SIZE, stream, out=total)
        optimizer.step()

    return run


def _torch_normal(total: Tensor) -> Callable[[], object]:
    """Noise of torch's generator, which is not made for secrets."""
    flat = nn.Parameter(torch.zeros_like(total))
    optimizer = torch.optim.SGD([flat], lr=RATE)
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        noise = torch.normal(0.0, DEVIATION, total.shape, generator=generator)
        flat.grad = noise.add_(total).div_(EXPECTED_BATCH_SIZE)
        optimizer.step()

    return run
