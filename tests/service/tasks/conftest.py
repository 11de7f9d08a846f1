from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3

from tasks.ner import NerTask
from tasks.ner.sentences import Sentence


class FakeEncoder:
    """Eight numbers per word, from its hash; counts how often it is asked."""

    width = 8

    def __init__(self):
        self.calls = 0

    def digest(self):
        return "fake"

    def encode(self, sentences):
        self.calls += 1
        words = [word for sentence in sentences for word in sentence]
        rows = [np.frombuffer(blake3(word.encode()).digest(length=8), np.uint8) for word in words]
        return (np.array(rows, dtype=np.float32).reshape(-1, 8) / 128 - 1).astype(np.float16)


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
def task(encoder):
    """The task as shipped, with an encoder that costs nothing."""
    return NerTask(encoder=encoder)


@pytest.fixture
def sentences():
    """Four sentences, the first the longest."""
    return [
        tag("Ann/O takes/O velorin/B-Drug for/O bad/B-Disease gout/I-Disease ./O"),
        tag("no/O gout/B-Disease"),
        tag("stop/O velorin/B-Drug ,/O start/O morapril/B-Drug"),
        tag("well/O"),
    ]


def tag(text, **fields):
    words, tags = zip(*(pair.rsplit("/", 1) for pair in text.split()), strict=True)
    return Sentence(words, tags, **fields)


@pytest.fixture
def tagged():
    """Make a sentence of `word/tag` pairs."""
    return tag


@pytest.fixture
def make_encoder():
    """Make another encoder that costs nothing."""
    return FakeEncoder
