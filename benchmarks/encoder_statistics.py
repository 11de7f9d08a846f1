"""Make the statistics of public text that the encoder's vectors are conditioned with.

    python -m benchmarks.encoder_statistics

The text is every second training sentence of letters written under a seed of their own: no site
has them, so nothing that is private anywhere goes into the file. Its last digits depend on the
processor, so it is made once, kept in the package and pinned by its digest.
"""

from __future__ import annotations

import hashlib

import torch
from safetensors.torch import save

from tasks.ner.conditioning import FILE, Statistics
from tasks.ner.encoder import MiniLM
from tasks.ner.letters import letters

PUBLIC = 8  # the seed
POWER = 0.5  # of the whitening: 0 leaves the directions as they are, 1 makes them all equal
FLOOR = 0.01  # added to each direction's variance, in units of their mean


def main() -> None:
    """Write the file and print its digest."""
    texts = [sentence.tokens for sentence in letters(PUBLIC) if sentence.split == "train"][::2]
    content = save(_rounded(statistics(list(MiniLM().layers(texts)))))
    FILE.write_bytes(content)
    print(hashlib.sha256(content).hexdigest())


def statistics(sentences: list[torch.Tensor]) -> Statistics:
    """Return mean and whitening of sentences, each of shape (layers, its words, hidden)."""
    words = torch.cat(sentences, dim=1).double()
    mean = words.mean(dim=1, keepdim=True)
    return Statistics(mean[:, 0], torch.stack([whitening(layer) for layer in words - mean]))


def whitening(words: torch.Tensor) -> torch.Tensor:
    """Return W = c (S + f I)^(-POWER / 2) of centred `words`, shape (hidden, hidden).

    S is their covariance, f its mean variance times `FLOOR`; c makes the mean square of W's
    outcome 1.
    """
    covariance = words.T.cov()
    values, directions = torch.linalg.eigh(covariance)
    scales = (values.clamp(min=0.0) + FLOOR * values.mean()) ** (-POWER / 2)
    symmetric: torch.Tensor = (directions * scales) @ directions.T
    size: torch.Tensor = (words @ symmetric).square().mean().sqrt()
    return symmetric / size


def _rounded(found: Statistics) -> dict[str, torch.Tensor]:
    return {name: tensor.half().contiguous() for name, tensor in found._asdict().items()}


if __name__ == "__main__":
    main()
