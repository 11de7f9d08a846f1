"""What the kernels compute: each function of theirs on a few values, by the code made of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from common.randomness import RandomStream
from private_step import noise
from private_step.compiling import _team, compiled
from private_step.kernel import Kernel
from private_step.lanes import F32, F64, I32, I64
from private_step.noise_kernel import direction, noised, radius

COUNT = 300  # steps of 16, of 8 and of 1
RANDOM = np.random.default_rng(1)
WORDS = RANDOM.integers(-(2**31), 2**31, size=(3, COUNT)).astype(np.int32)
EDGES = np.array([-(2**31), -1, 0, 1, 2**29, 2**30 - 1, 2**31 - 1, -(2**30), -(2**29)], np.int32)


def applied(function, *inputs: np.ndarray, outputs: int = 1) -> list[np.ndarray]:
    """Return what a function of lanes gives for each place of its inputs."""
    kinds = [F32 if each.dtype == np.float32 else I32 for each in inputs]
    kernel = Kernel("probe", [I64, *kinds, *[F32] * outputs])
    count, *arrays = kernel.arguments

    def body(place, width):
        loaded = [each.load(place, width) for each in arrays[: len(inputs)]]
        found = function(*loaded)
        for array, values in zip(arrays[len(inputs) :], found, strict=True):
            array.store(place, values)

    kernel.each_part(lambda _: kernel.each(count, body))
    results = [torch.empty(len(inputs[0])) for _ in range(outputs)]
    given = [torch.from_numpy(np.ascontiguousarray(each)) for each in inputs]
    compiled(kernel).call(len(inputs[0]), *given, *results).run(1)
    return [each.numpy() for each in results]


def test_directions_lie_on_the_circle_where_the_angle_says():
    turn = np.concatenate([WORDS[2], EDGES])
    cosine, sine = applied(direction, turn, outputs=2)
    angle = turn * (np.pi * 2.0**-31)
    np.testing.assert_allclose(cosine, np.cos(angle), atol=3e-7)
    np.testing.assert_allclose(sine, np.sin(angle), atol=3e-7)


def test_radii_are_those_of_box_and_muller():
    high = np.concatenate([WORDS[0], np.array([0, 0, 0, 1, 2**31 - 1], np.int32)])
    low = np.concatenate([WORDS[1], np.array([0, 1, 2**31 - 1, 0, 2**31 - 1], np.int32)])
    scale = np.full(len(high), -2.0, np.float32)
    (found,) = applied(lambda *lanes: [radius(*lanes)], high, low, scale)
    kept = (high & 0x7FFFFFFF) + ((low & 0x7FFFFFFF) + 0.5) * 2.0**-31
    np.testing.assert_allclose(found, np.sqrt(-2 * np.log(kept * 2.0**-31)), rtol=1e-5, atol=1e-3)
    assert float(found.max()) == pytest.approx(9.34, abs=0.01)  # how far the tail reaches


def test_what_is_noised_is_rounded_before_it_is_scaled():
    kernel = Kernel("noised", [F32, F32, F32, F64, F64, I64])
    total, added, mean, inner, outer, count = kernel.arguments

    def body(place, width):
        scales = inner.single().in_all(width), outer.single().in_all(width)
        mean.store(place, noised(total.load(place, width), added.load(place, width), scales))

    kernel.each_part(lambda _: kernel.each(count, body))
    found, sums = torch.empty(3), torch.tensor([0.5, -2.0, 1e6])
    noises = torch.tensor([0.3, 0.26, -0.4])
    compiled(kernel).call(sums, noises, found, 10.0, 0.25, 3).run(1)
    assert found.tolist() == [5 * 0.25, -20 * 0.25, 10_000_000 * 0.25]


@pytest.mark.parametrize("count", [1, 2, 33, 65_535, 65_537, 131_072, 98_305, 600_001])
def test_the_compiled_noise_is_that_of_torch_and_touches_nothing_else(count, monkeypatch):
    sums = torch.linspace(-5, 5, count + 4 * noise.BLOCK)
    stream, step = RandomStream(bytes(32)), 0.5 * noise.GRID / 8.0
    pieces = sums[:count].split(noise.BLOCK)
    expected = torch.cat([noise.noised_multiples(piece, 0.5, stream) for piece in pieces]) * step
    monkeypatch.setattr(noise, "WORTH_COMPILING", 1)
    kept = sums[count:].clone()
    found = noise.noised_mean(sums[:count], 0.5, 8.0, RandomStream(bytes(32)), out=sums[:count])
    # before they go to the grid one rounds to 24 bits, one to 53: neighbours on it, seldom
    assert float((found != expected.float()).float().mean()) < 0.03 + 1 / count
    assert float((found - expected).abs().max()) <= 1.01 * step
    assert torch.equal(sums[count:], kept)


def test_memory_with_gaps_or_of_another_kind_is_not_for_the_kernel(monkeypatch):
    monkeypatch.setattr(noise, "WORTH_COMPILING", 1)
    sums = torch.linspace(-5, 5, 2001)
    every_second = sums[::2].clone()
    expected = noise.noised_mean(every_second, 0.5, 8.0, RandomStream(bytes(32)))
    found = [
        noise.noised_mean(sums[::2], 0.5, 8.0, RandomStream(bytes(32))),
        noise.noised_mean(
            every_second, 0.5, 8.0, RandomStream(bytes(32)), out=torch.zeros(2002)[::2]
        ),
        noise.noised_mean(
            every_second, 0.5, 8.0, RandomStream(bytes(32)), out=torch.zeros(1001).double()
        ).float(),
    ]
    for each in found:
        torch.testing.assert_close(each, expected, rtol=0, atol=1.01 * 0.5 * noise.GRID / 8.0)


def test_parts_run_once_each_in_torchs_team_and_without_one(monkeypatch):
    kernel = Kernel("parts", [F32])
    (counts,) = kernel.arguments
    kernel.each_part(lambda part: counts.store(part, counts.load(part, 1) + 1.0))
    code, threads = compiled(kernel), torch.get_num_threads()
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        counted = torch.zeros(1000)
        call = code.call(counted)
        call.run(999)
        call.run(1000)
        assert counted[:999].tolist() == [2.0] * 999
        assert counted[999] == 1.0
    torch.set_num_threads(threads)
    monkeypatch.setattr("private_step.compiling.NAME_IN_TORCH", "no such function")
    assert _team.__wrapped__() is None
    monkeypatch.setattr("private_step.compiling._team", lambda: None)
    counted = torch.zeros(1000)
    code.call(counted).run(1000)
    assert bool((counted == 1.0).all())


def test_without_llvmlite_torch_makes_the_noise(monkeypatch):
    monkeypatch.setitem(sys.modules, "private_step.noise_kernel", None)
    assert noise._code.__wrapped__() is None
