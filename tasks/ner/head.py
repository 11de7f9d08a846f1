"""The trained part: one linear layer from a word's features to its tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import log_softmax

from tasks.ner.dataset import CONSTANT, PADDING

if TYPE_CHECKING:
    from torch import Tensor

OUTSIDE_BIAS = 2.0  # of the first tag, `O`, at the start: most words are outside


class Head(nn.Module):
    """A linear layer without bias: the features' constant stands in for it."""

    def __init__(self, features: int, tags: int) -> None:
        super().__init__()
        weight = torch.zeros(tags, features)
        weight[0, -1] = OUTSIDE_BIAS / CONSTANT
        self.linear = nn.Linear(features, tags, bias=False, device="meta")  # draws no numbers
        self.linear.weight = nn.Parameter(weight)

    def forward(self, features: Tensor) -> Tensor:
        """Return the score of every tag, shape (..., tags), in nats up to a constant."""
        scores: Tensor = self.linear(features)
        return scores


def sentence_losses(scores: Tensor, tags: Tensor) -> Tensor:
    """Return the sum of the words' cross entropies for each sentence.

    Args:
        scores: shape (batch, words, tags).
        tags: the right ones, shape (batch, words); `PADDING` where there is no word.

    Returns:
        Shape (batch,), in nats; padding adds exactly nothing to it or to its gradient.
    """
    there = tags != PADDING
    right = tags.where(there, 0).unsqueeze(-1)
    losses = -log_softmax(scores, dim=-1).gather(-1, right).squeeze(-1)
    return losses.where(there, 0.0).sum(dim=-1)
