"""A vector for a word's spelling that needs no shared vocabulary.

Every property of the spelling (the word, its affixes, its three-letter parts, its shape)
is hashed; the bits of the hash are the signs of a random direction. All sites know the
hash, so all sites get the same vector for a word that only one of them has ever seen.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

WIDTH = 192  # bits of each hash, numbers of each vector
MOST_TRIGRAMS = 14
SHAPE_RUNS = 6


def lexical_vectors(words: Sequence[str]) -> NDArray[np.float32]:
    """Return the spelling vectors of `words`.

    A property's direction is a row of independent signs, so the inner product of two
    words estimates the weight of the properties that they share.

    Returns:
        Shape (words, `WIDTH`); the mean square of each row is 1.

    Source:
        Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning";
        Achlioptas 2003, "Database-friendly random projections".
    """
    vectors = np.zeros((len(words), WIDTH), dtype=np.float32)
    directions: dict[str, NDArray[np.float32]] = {}
    for row, word in enumerate(words):
        for name, weight in properties(word):
            if name not in directions:
                directions[name] = _signs(name)
            vectors[row] += weight * directions[name]
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors *= np.float32(WIDTH**0.5) / np.maximum(norms, np.float32(1e-9))
    return vectors


def properties(word: str) -> Iterator[tuple[str, float]]:
    """Yield the properties of a word's spelling, each with its weight."""
    lower = word.lower()
    marked = f"^{lower}$"
    yield f"word {lower}", 1.0
    yield f"shape {shape(word)}", 1.0
    yield f"capitals {word[:1].isupper()} {word.isupper()}", 1.0
    yield f"length {min(len(word), 12)}", 0.7
    yield f"start {marked[:4]}", 0.7
    yield f"end {marked[-4:]}", 0.7
    yield f"end {marked[-3:]}", 0.7
    for start in range(min(MOST_TRIGRAMS, len(marked) - 2)):
        yield f"part {marked[start : start + 3]}", 0.4


def shape(word: str) -> str:
    """Return the word's shape: one sign per run, as in `X`, `Xx`, `x-d`; at most six."""
    return "".join(kind for kind, _ in groupby(map(_kind, word)))[:SHAPE_RUNS]


def _kind(letter: str) -> str:
    if letter.isalpha():
        return "X" if letter.isupper() else "x"
    if letter.isdigit():
        return "d"
    return letter if letter in "-.@#/'" else "p"


def _signs(name: str) -> NDArray[np.float32]:
    digest = blake3(name.encode()).digest(length=WIDTH // 8)
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))
    return bits.astype(np.float32) * 2 - 1
