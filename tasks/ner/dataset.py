"""The sentences of one site and split as feature tensors."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

from tasks.ner.features import encoded
from tasks.ner.lexical import WIDTH, lexical_vectors
from tasks.ner.tags import tag_set
from tasks.ner.units import rows_of_units

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from common.plan import Unit
    from tasks.ner.encoder import Encoder
    from tasks.ner.sentences import Sentence
    from tasks.task import Batch

LONGEST = 80  # words of a sentence that the training loss reads; scoring reads them all
CONSTANT = 0.3  # the last feature of every word: the head's bias, in the feature's scale
PADDING = -100  # the tag of a word that is not there


def feature_width(encoder: Encoder) -> int:
    """Count the numbers per word: the encoder's, three spellings, one constant."""
    return encoder.width + 3 * WIDTH + 1


class NerDataset:
    """Sentences in order of length, so that neighbours waste little padding.

    A word's features are the encoder's vector, the spelling vectors of the word, of the
    one before and of the one after, and a constant; the norm of all but the constant is
    about 1. Only the encoder's vectors and one spelling vector per distinct word are held.
    """

    def __init__(
        self,
        sentences: Sequence[Sentence],
        labels: Sequence[str],
        encoder: Encoder,
        cache: Path | None,
        source: str = "the data",
    ) -> None:
        self._source = source
        self.labels = tuple(labels)
        self.sentences = sorted(sentences, key=lambda sentence: len(sentence.tokens))
        words = [sentence.tokens for sentence in self.sentences]
        self._lengths = [len(sentence) for sentence in words]
        self._starts = [0, *accumulate(self._lengths)]
        self._width = feature_width(encoder)
        self._encoded = encoded(words, encoder, cache)
        self._scale = (self._width - 1) ** -0.5
        self._neighbours, distinct = _word_ids(words)
        spellings = torch.from_numpy(lexical_vectors(distinct)) * self._scale
        self._spellings = torch.cat([torch.zeros(1, WIDTH), spellings])
        self._tags = _tag_ids(self.sentences, self.labels)

    def __len__(self) -> int:
        """Count the sentences."""
        return len(self.sentences)

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return the features and the tags of sentences, cut after `LONGEST` words.

        Returns:
            Features, shape (batch, words, features), float32, padded with zeros; tags,
            shape (batch, words), int64, padded with `PADDING`. `words` is at least 1.
        """
        lengths = [min(self._lengths[row], LONGEST) for row in rows]
        there, words = self._words_of(rows, lengths)
        tags = torch.full(there.shape, PADDING)
        tags[there] = self._tags[words]
        return self._features(there, words), tags

    def features(self, rows: Sequence[int]) -> Tensor:
        """Return the features of whole sentences, shape (batch, words, features)."""
        return self._features(*self._words_of(rows, [self._lengths[row] for row in rows]))

    def units(self, unit: Unit) -> Sequence[Sequence[int]]:
        """Return the rows of each unit; raise UnitNotCarried, see `tasks.ner.units`."""
        return rows_of_units(self.sentences, unit, self._source)

    def content_digests(self) -> list[bytes]:
        """Return 32 bytes per sentence that name its words and tags."""
        return [sentence.content_digest() for sentence in self.sentences]

    def _words_of(self, rows: Sequence[int], lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return where a batch has words, shape (batch, words), and which, in that order."""
        places = torch.arange(max(lengths, default=1))
        there = places < torch.tensor(lengths, dtype=torch.int64)[:, None]
        starts = torch.tensor([self._starts[row] for row in rows], dtype=torch.int64)
        return there, (starts[:, None] + places)[there]

    def _features(self, there: Tensor, words: Tensor) -> Tensor:
        batch = torch.zeros(*there.shape, self._width)
        vectors = torch.from_numpy(np.asarray(self._encoded[words.numpy()]))
        rows = torch.empty(len(words), self._width)
        torch.mul(vectors, self._scale, out=rows[:, : vectors.shape[1]])
        for part, ids in enumerate(self._neighbours[:, words]):
            first = self._width - 1 - (3 - part) * WIDTH
            rows[:, first : first + WIDTH] = self._spellings[ids]
        rows[:, -1] = CONSTANT
        batch[there] = rows
        return batch


def _word_ids(sentences: Sequence[Sequence[str]]) -> tuple[Tensor, list[str]]:
    """Number the distinct words from 1; id 0 is no word.

    Returns:
        The ids of each word, of the one before and of the one after in its sentence,
        shape (3, words); and the distinct words in order of their ids.
    """
    ids: dict[str, int] = {}
    rows: list[tuple[int, int, int]] = []
    for words in sentences:
        row = [0, *(ids.setdefault(word, len(ids) + 1) for word in words), 0]
        rows += zip(row[1:-1], row[:-2], row[2:], strict=True)
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).T.contiguous(), list(ids)


def _tag_ids(sentences: Sequence[Sentence], labels: Sequence[str]) -> Tensor:
    places = {tag: place for place, tag in enumerate(tag_set(labels))}
    return torch.tensor([places[tag] for sentence in sentences for tag in sentence.tags])
