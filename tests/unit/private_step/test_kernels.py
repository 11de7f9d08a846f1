"""The compiled loops as plain Python: what they compute, on a few values."""

from __future__ import annotations

import numpy as np
import pytest

from private_step.kernels import directions, noised, noised_block, radii

WORDS = np.random.default_rng(1).integers(-(2**31), 2**31, size=(3, 300)).astype(np.int32)
EDGES = np.array([-(2**31), -1, 0, 1, 2**29, 2**30 - 1, 2**31 - 1, -(2**30), -(2**29)], np.int32)


def test_directions_lie_on_the_circle_where_the_angle_says():
    turn = np.concatenate([WORDS[2], EDGES])
    cosine, sine = np.empty((2, len(turn)), np.float32)
    with np.errstate(over="ignore"):  # whole turns wrap
        directions(turn, cosine, sine)
    angle = turn * (np.pi * 2.0**-31)
    np.testing.assert_allclose(cosine, np.cos(angle), atol=3e-7)
    np.testing.assert_allclose(sine, np.sin(angle), atol=3e-7)


def test_radii_are_those_of_box_and_muller():
    high = np.concatenate([WORDS[0], np.array([0, 0, 0, 1, 2**31 - 1], np.int32)])
    low = np.concatenate([WORDS[1], np.array([0, 1, 2**31 - 1, 0, 2**31 - 1], np.int32)])
    radius, room = np.empty(len(high), np.float32), np.empty(len(high), np.int32)
    radii(high, low, radius, room, np.float32(-2.0))
    kept = (high & 0x7FFFFFFF) + ((low & 0x7FFFFFFF) + 0.5) * 2.0**-31
    np.testing.assert_allclose(radius, np.sqrt(-2 * np.log(kept * 2.0**-31)), rtol=1e-5, atol=1e-3)
    assert float(radius.max()) == pytest.approx(9.34, abs=0.01)  # how far the tail reaches


def test_what_is_noised_is_rounded_before_it_is_scaled():
    mean = np.empty(3, np.float32)
    total = np.array([0.5, -2.0, 1e6], np.float32)
    noise = np.array([0.3, 0.26, -0.4], np.float32), np.ones(3, np.float32)
    noised(total, *noise, mean, (10.0, 0.25))
    assert mean.tolist() == [5 * 0.25, -20 * 0.25, 10_000_000 * 0.25]


@pytest.mark.parametrize(("count", "at_once"), [(600, 300), (599, 128), (600, 7), (1, 4)])
def test_a_block_in_pieces_has_the_noise_of_its_pairs_one_half_behind_the_other(count, at_once):
    pairs = -(-count // 2)
    words, scale = WORDS[:, :pairs], np.float32(-2.0)
    radius, cosine, sine = np.empty((3, pairs), np.float32)
    total, mean = np.linspace(-3, 3, count, dtype=np.float32), np.full(count, np.nan, np.float32)
    rooms = *np.empty((3, at_once), np.float32), np.empty(at_once, np.int32)
    with np.errstate(over="ignore"):  # whole turns wrap
        radii(words[0], words[1], radius, np.empty(pairs, np.int32), scale)
        directions(words[2], cosine, sine)
        noised_block(words, total, mean, rooms, (2.0**10, 0.5, scale))
    noise = np.concatenate([radius * cosine, radius * sine])[:count]
    expected = np.rint(total.astype(np.float64) * 2.0**10 + noise) * 0.5
    np.testing.assert_array_equal(mean, expected.astype(np.float32))
