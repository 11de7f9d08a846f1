"""Corpora by name: the generated one, and public ones from the user's data folder."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING

from common.plan import Unit
from tasks.ner.download import SOURCES
from tasks.ner.errors import CorpusMissing, NoSentences, UnknownCorpus, UnknownLabel
from tasks.ner.letters import letters
from tasks.ner.sentences import Sentence, read_file
from tasks.ner.tags import label_of
from tasks.ner.units import rows_of_units
from tasks.task import DataConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

GENERATED = "letters"
CORPORA = (GENERATED, *SOURCES)


def read_sentences(data: DataConfig, labels: Sequence[str] | None) -> tuple[Sentence, ...]:
    """Return the sentences that `data` names; check every line of their file, used or not.

    A sentence whose file names no site or no split belongs to whichever is asked for.

    Raises:
        UnknownLabel: a tag of the site's rows carries a label that is not in `labels`; None
            takes any.
        NoSentences: nothing is left for the site and the split.
    """
    everything = _everything(data)
    chosen = tuple(
        sentence
        for sentence in everything
        if sentence.split in {None, data.split} and _is_of_site(sentence, data.site)
    )
    if not chosen:
        sites = _sites(everything)
        raise NoSentences(data.source, site=data.site, split=data.split, sites=sites)
    if labels is not None:
        _check_labels(data.source, chosen, labels)
    return chosen


def corpus_sites(name: str, data_dir: Path | None = None) -> tuple[str, ...]:
    """Return the sites of a corpus that have training sentences, in the order of its file."""
    return tuple(site_sizes(name, data_dir))


def corpus_labels(name: str, data_dir: Path | None = None) -> tuple[str, ...]:
    """Return the entity types of a corpus, sorted."""
    labels = {label_of(tag) for row in read_corpus(name, data_dir) for tag in row.tags}
    return tuple(sorted(label for label in labels if label is not None))


def site_sizes(
    name: str, data_dir: Path | None = None, unit: Unit = Unit.EXAMPLE
) -> dict[str, int]:
    """Return how many units, of one kind, each site of a corpus has in its training sentences.

    Raises:
        UnitNotCarried: the corpus does not say of every sentence to which unit it belongs.
    """
    of_site = defaultdict[str, list[Sentence]](list)
    for row in read_corpus(name, data_dir):
        if row.split == "train" and row.site is not None:
            of_site[row.site].append(row)
    return {site: len(rows_of_units(rows, unit, name)) for site, rows in of_site.items()}


def read_corpus(name: str, data_dir: Path | None = None) -> tuple[Sentence, ...]:
    """Return all sentences of a corpus by name.

    Raises:
        UnknownCorpus: no corpus goes by that name.
        CorpusMissing: it is not shipped, and `data_dir` does not hold it.
    """
    if name not in CORPORA:
        raise UnknownCorpus(name, known=CORPORA)
    if name == GENERATED:
        return _letters()
    path = None if data_dir is None else data_dir / f"{name}.jsonl"
    if path is None or not path.is_file():
        raise CorpusMissing(name, looked_in=data_dir, source=SOURCES[name])
    return read_file(path)


_letters = cache(letters)  # pure, and read by every site of a demo


def _everything(data: DataConfig) -> tuple[Sentence, ...]:
    if data.path is not None:
        return read_file(data.path)
    return read_corpus(data.corpus or "", data.data_dir)


def _is_of_site(sentence: Sentence, site: str | None) -> bool:
    return site is None or sentence.site in {None, site}


def _sites(sentences: Iterable[Sentence]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s.site for s in sentences if s.site is not None))


def _check_labels(source: str, sentences: Iterable[Sentence], labels: Sequence[str]) -> None:
    known = {None, *labels}
    for sentence in sentences:
        for tag in sentence.tags:
            if label_of(tag) not in known:
                where = f"{source}, line {sentence.line}" if sentence.line else source
                raise UnknownLabel(tag[2:], where=where, known=labels)
