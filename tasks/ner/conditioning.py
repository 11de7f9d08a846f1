r"""What makes the encoder's vectors fit for private training: centred, and of like directions.

Clipping and noise see the length of a gradient, and that is the length of the features. As the
encoder leaves them, a few directions hold most of that length, the same for every word: length that
costs privacy and tells no word from another. Statistics of public text, generated letters that no
site has, take the common part away and bring the directions nearer to each other:

.. math:: z = (x - \mu) W

with mu the mean of a word's vector and W a partial whitening. Both are constants of the package, so
a unit of privacy moves its own features only. `python -m benchmarks.encoder_statistics` makes them.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors.torch import load

from tasks.ner.errors import EncoderChanged

if TYPE_CHECKING:
    from torch import Tensor

FILE = Path(__file__).with_name("conditioning.safetensors")
SHA256 = "18fca68e6db448f9a65c253ea6e5e7348b9a59ab4f2ffecc87ea15d9befeec7b"


class Statistics(NamedTuple):
    """Of public text, float32."""

    mean: Tensor  # mu, shape (layers, hidden)
    whitening: Tensor  # W, shape (layers, hidden, hidden), symmetric


def conditioned(words: Tensor, statistics: Statistics) -> Tensor:
    """Return the vectors of words as the head reads them.

    Args:
        words: shape (layers, words, hidden), each vector of mean 0 and variance 1.
        statistics: of public text.

    Returns:
        Shape (layers, words, hidden); on public text, the mean square of a number is 1.
    """
    return (words - statistics.mean[:, None]) @ statistics.whitening


@cache
def public_statistics() -> Statistics:
    """Read the package's statistics; raise EncoderChanged if they are not those pinned."""
    content = FILE.read_bytes()
    got = hashlib.sha256(content).hexdigest()
    if got != SHA256:
        raise EncoderChanged(FILE, got=got, need=SHA256)
    tensors = load(content)
    return Statistics(tensors["mean"].float(), tensors["whitening"].float())
