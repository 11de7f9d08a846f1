"""Named-entity recognition: a frozen encoder, hashed spellings and one trained layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tasks import task as protocol
from tasks.ner.corpora import read_sentences, survey_sentences
from tasks.ner.dataset import LONGEST, PADDING, NerDataset, feature_width
from tasks.ner.encoder import Encoder, MiniLM
from tasks.ner.head import Head, sentence_losses
from tasks.ner.scoring import entity_scores, predict_tags
from tasks.ner.sentences import Sentence
from tasks.ner.tags import OUTSIDE, tag_set
from tasks.ner.units import counts
from tasks.task import BadLine, DataConfig, DataReport, Scores, Survey, digest_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from tasks.task import Batch


@dataclass(frozen=True)
class NerTask:
    """Finds entities in text; the label set is the plan's.

    Only the linear head trains. The encoder is the same file at every site, and the
    spelling features are hashes, so no vocabulary is shared and none can leak.
    """

    name: str = "ner"
    version: str = "1"
    encoder: Encoder = field(default_factory=MiniLM)

    def digest(self) -> str:
        """Return the hexadecimal name of this folder's code, the protocol and the encoder."""
        code = sorted(Path(__file__).parent.glob("*.py"))
        return digest_files([*code, Path(protocol.__file__)], self.encoder.digest())

    def build_model(self, labels: Sequence[str]) -> nn.Module:
        """Return the head before training: it calls every word `O`."""
        return Head(feature_width(self.encoder), len(tag_set(labels)))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return each sentence's summed cross entropy in nats, shape (batch,)."""
        features, tags = batch
        return sentence_losses(model(features), tags)

    def specimens(self, labels: Sequence[str]) -> Batch:
        """Return three made-up sentences of 4 words, the last one shorter."""
        generator = torch.Generator().manual_seed(0)
        shape = (3, 4, feature_width(self.encoder))
        features = torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        tags = torch.randint(len(tag_set(labels)), shape[:2], generator=generator)
        tags[-1, 2:] = PADDING
        features[-1, 2:] = 0.0
        return features, tags

    def check(self, data: DataConfig, labels: Sequence[str] | None) -> DataReport:
        """Read and check every line, and count; loads neither encoder nor features."""
        return _report(data, read_sentences(data, labels), labels)

    def survey(self, data: DataConfig, labels: Sequence[str] | None) -> Survey:
        """Read and check every line, and count those that are in order and those that are not."""
        sentences, faults = survey_sentences(data, labels)
        first = tuple(BadLine(each.line, each.reason) for each in faults.first)
        return Survey(_report(data, sentences, labels), faults.count, first)

    def read(self, data: DataConfig, labels: Sequence[str], cache: Path) -> NerDataset:
        """Check the data and compute their features, or find them in `cache`."""
        sentences = read_sentences(data, labels)
        return NerDataset(sentences, labels, self.encoder, cache, data.source)

    def score(self, model: nn.Module, dataset: protocol.Dataset) -> Scores:
        """Return the entity-level scores of `model`; sentences are read to their end."""
        if not isinstance(dataset, NerDataset):
            raise TypeError(f"this task scores its own datasets, got {type(dataset).__name__}")
        right = [sentence.tags for sentence in dataset.sentences]
        return entity_scores(right, predict_tags(model, dataset))

    def predict(
        self,
        model: nn.Module,
        sentences: Sequence[Sequence[str]],
        labels: Sequence[str],
        cache: Path | None = None,
    ) -> list[list[str]]:
        """Return a legal IOB2 tag for each word of each sentence, in the order given."""
        # the dataset sorts by length: the line number remembers where each sentence came from
        untagged = [
            Sentence(tuple(words), (OUTSIDE,) * len(words), line=place)
            for place, words in enumerate(sentences)
        ]
        dataset = NerDataset([s for s in untagged if s.tokens], labels, self.encoder, cache)
        found: list[list[str]] = [[] for _ in sentences]
        tagged = zip(dataset.sentences, predict_tags(model, dataset), strict=True)
        for sentence, tags in tagged:
            found[sentence.line] = tags
        return found


def _report(
    data: DataConfig, sentences: Sequence[Sentence], labels: Sequence[str] | None
) -> DataReport:
    entities = (tag[2:] for s in sentences for tag in s.tags if tag.startswith("B-"))
    return DataReport(
        source=data.source,
        split=data.split,
        sentences=len(sentences),
        words=sum(len(s.tokens) for s in sentences),
        overlong=sum(len(s.tokens) > LONGEST for s in sentences),
        per_label=dict.fromkeys(labels or (), 0) | Counter(entities),
        per_site=dict(Counter(s.site or data.site or "" for s in sentences)),
        per_unit=counts(sentences, data.source),
        shared=sum(len(s.persons) > 1 for s in sentences),
    )


TASK = NerTask()
