"""The encoder's vectors of a list of sentences, computed once and kept on disk."""

from __future__ import annotations

import json
import os
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.ner.encoder import Encoder


def encoded(
    sentences: Sequence[Sequence[str]], encoder: Encoder, cache: Path | None
) -> NDArray[np.float16]:
    """Return the vectors of all words, from `cache` if they are there.

    Several processes may share a cache: a file appears under its name only when it is
    whole, and two that compute the same file write the same bytes.

    Returns:
        Shape (words of all sentences, `encoder.width`), in order; mapped from disk if cached.
    """
    if cache is None:
        return encoder.encode(sentences)
    path = cache / f"{features_digest(sentences, encoder)}.npy"
    if not path.is_file():
        _write(path, encoder.encode(sentences))
    vectors: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    return vectors


def features_digest(sentences: Sequence[Sequence[str]], encoder: Encoder) -> str:
    """Return the hexadecimal name of the vectors of these words under this encoder."""
    hasher = blake3(encoder.digest().encode())
    for sentence in sentences:
        hasher.update(json.dumps(list(sentence)).encode())
    return hasher.hexdigest()


def _write(path: Path, vectors: NDArray[np.float16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        np.save(file, vectors, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)  # noqa: PTH105 (the name is a string)
