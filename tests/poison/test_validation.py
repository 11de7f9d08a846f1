"""No bad update reaches the average, and the rounds close with exactly the honest ones.

`make poison CASES=100000` sends as many as one likes.
"""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pytest

from common.bad_updates import UpdateRefusalReason
from common.wire_formats import WireFormat
from tests.poison.cases import Case, Good, patched, verdict
from tests.poison.rounds import Poisoned, poisoned

CASES = 200  # for each format


@pytest.mark.timeout(180)
async def test_bad_updates_are_refused_each_reason_is_seen_and_the_honest_make_the_mean(tmp_path):
    reasons: set[str] = set()
    for wire_format in WireFormat:
        found = await poisoned(tmp_path / wire_format, wire_format, seed=7, cases=CASES)
        assert found.cases >= CASES
        assert found.escaped == []
        assert found.wrong_means == []
        reasons |= set(found.reasons)
    assert reasons == set(UpdateRefusalReason)


# what was found to be refused for another reason than it should be, to warn, or to be let through


def signalling(good: Good) -> Case:
    """A NaN that signals: numpy warns where one is cast."""
    width = 2 if good.form.wire_format is WireFormat.BFLOAT16 else 4
    raw = {2: b"\x81\x7f", 4: b"\x01\x00\x80\x7f"}[width]
    return Case("signalling", patched(good, 0, raw), verdict(UpdateRefusalReason.NOT_FINITE))


def empty(_: Good) -> Case:
    return Case("empty", b"", verdict(UpdateRefusalReason.MALFORMED))


def endless_header(good: Good) -> Case:
    data = b"\xff" * 8 + good.data[8:]
    return Case("endless header", data, verdict(UpdateRefusalReason.MALFORMED))


def header_alone(good: Good) -> Case:
    return Case("header alone", good.data[: good.begin], verdict(UpdateRefusalReason.MALFORMED))


def last_value_nan(good: Good) -> Case:
    """The last value of all, where a piece may end: of int8 it is a step that is never written."""
    match good.form.wire_format:
        case WireFormat.FLOAT32:
            raw, reason = b"\x00\x00\xc0\x7f", UpdateRefusalReason.NOT_FINITE
        case WireFormat.BFLOAT16:
            raw, reason = b"\xc0\x7f", UpdateRefusalReason.NOT_FINITE
        case WireFormat.INT8:
            raw, reason = b"\x80", UpdateRefusalReason.ENCODING
    return Case("last value", good.data[: -len(raw)] + raw, verdict(reason))


def exactly_the_limit(good: Good) -> Case:
    match good.form.wire_format:
        case WireFormat.FLOAT32:
            raw = np.float32(2.0**11).tobytes()
        case WireFormat.BFLOAT16:
            raw = np.float32(2.0**11).tobytes()[2:]
        case WireFormat.INT8:
            raw = np.float32(2.0**11 / 127).tobytes()
    return Case("the limit", patched(good, 0, raw), verdict(UpdateRefusalReason.OUT_OF_RANGE))


CORPUS = (signalling, empty, endless_header, header_alone, last_value_nan, exactly_the_limit)


@pytest.mark.parametrize("wire_format", WireFormat)
async def test_the_corpus_of_found_cases_is_refused(tmp_path, wire_format):
    async with Poisoned(tmp_path / "state", wire_format, seed=1, rounds=2) as run:
        await run.round(1)
        turns = cycle(CORPUS)

        def case(good: Good) -> Case:
            return next(turns)(good)

        await run.round(2, case)
        assert run.found.is_good, run.found.escaped
        assert len(run.found.kinds) == len(CORPUS)


# the checks can fail


async def test_a_good_update_from_a_bad_gateway_is_an_escape(tmp_path):
    async with Poisoned(tmp_path / "state", WireFormat.FLOAT32, seed=1, rounds=2) as run:
        await run.round(1)
        one = iter([True])

        def case(good: Good) -> Case:
            if next(one, False):
                return Case("good", good.data, verdict(UpdateRefusalReason.NORM))
            return empty(good)

        await run.round(2, case)
        assert len(run.found.escaped) == 1
        assert run.found.wrong_means == [2]
