from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.ner.tags import decode, first_illegal, may_follow, tag_set, transitions

TAGS = tag_set(("Drug", "Disease"))
scores = st.integers(1, 4).flatmap(
    lambda words: arrays(np.float32, (words, len(TAGS)), elements=st.floats(-20, 0, width=32))
)


def test_the_tag_set_has_outside_first_and_two_tags_per_label():
    assert TAGS == ("O", "B-Drug", "I-Drug", "B-Disease", "I-Disease")


@given(scores)
@settings(max_examples=50, deadline=None)
def test_a_decoded_sequence_is_always_legal(log_probabilities):
    assert first_illegal(decode(log_probabilities, TAGS)) is None


@given(scores)
@settings(max_examples=50, deadline=None)
def test_no_legal_sequence_is_more_probable_than_the_decoded_one(log_probabilities):
    def probability(path):
        return sum(float(row[tag]) for row, tag in zip(log_probabilities, path, strict=True))

    paths = product(range(len(TAGS)), repeat=len(log_probabilities))
    legal = (path for path in paths if first_illegal([TAGS[tag] for tag in path]) is None)
    decoded = [TAGS.index(tag) for tag in decode(log_probabilities, TAGS)]
    assert probability(decoded) == pytest.approx(max(map(probability, legal)), abs=1e-3)


@pytest.mark.parametrize(
    ("tag", "previous", "allowed"),
    [
        ("I-Drug", "B-Drug", True),
        ("I-Drug", "I-Drug", True),
        ("I-Drug", "O", False),
        ("I-Drug", "B-Disease", False),
        ("B-Drug", "I-Disease", True),
        ("O", "I-Drug", True),
    ],
)
def test_an_inside_tag_continues_its_own_label_only(tag, previous, allowed):
    assert may_follow(tag, previous) is allowed


def test_an_illegal_step_costs_more_than_any_score():
    assert transitions(TAGS)[0].tolist() == [0, 0, -1e4, 0, -1e4]


def test_an_inside_tag_at_the_start_is_illegal():
    assert first_illegal(["I-Drug"]) == 0
