"""Corpora by name: the generated one, and public ones from the user's data folder."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from common.plan import Unit
from tasks.ner.download import SOURCES
from tasks.ner.errors import BrokenLine, CorpusMissing, NoSentences, UnknownCorpus, UnknownLabel
from tasks.ner.letters import letters
from tasks.ner.sentences import Sentence, read_file, read_rows, whole
from tasks.ner.tags import label_of
from tasks.ner.units import rows_of_units
from tasks.task import DataConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

GENERATED = "letters"
CORPORA = (GENERATED, *SOURCES)
MOST_NAMED = 10  # bad lines that a survey names; the others it counts


def read_sentences(data: DataConfig, labels: Sequence[str] | None) -> tuple[Sentence, ...]:
    """Return the sentences that `data` names; check every line of their file, used or not.

    A sentence whose file names no site or no split belongs to whichever is asked for.

    Raises:
        UnknownLabel: a tag of the site's rows carries a label that is not in `labels`; None
            takes any.
        BrokenLine: a line cannot be read; names the first one.
        NoSentences: nothing is left for the site and the split.
    """
    rows = tuple(whole(row) for row in _rows(data))
    chosen = tuple(row for row in rows if _is_asked_for(row, data))
    if not chosen:
        raise NoSentences(data.source, site=data.site, split=data.split, sites=_sites(rows))
    for row in chosen:
        unknown = _unknown_label(row, data.source, labels)
        if unknown is not None:
            raise unknown
    return chosen


@dataclass
class Faults:
    """What is wrong with lines: all are counted, the first few are kept."""

    count: int = 0
    first: list[BrokenLine | UnknownLabel] = field(default_factory=list)

    def note(self, fault: BrokenLine | UnknownLabel) -> None:
        """Take one more; lines come in their order."""
        self.count += 1
        if len(self.first) < MOST_NAMED:
            self.first.append(fault)


def survey_sentences(
    data: DataConfig, labels: Sequence[str] | None
) -> tuple[tuple[Sentence, ...], Faults]:
    """Return the sentences that `read_sentences` would, were it not for what is wrong, and that.

    None is left where the data have none of the site and the split.
    """
    faults, in_order = Faults(), list[Sentence]()
    for row in _rows(data):
        if isinstance(row, BrokenLine):
            faults.note(row)
        elif _is_asked_for(row, data):
            unknown = _unknown_label(row, data.source, labels)
            if unknown is None:
                in_order.append(row)
            else:
                faults.note(unknown)
    return tuple(in_order), faults


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
    path = _corpus_file(name, data_dir)
    return _letters() if path is None else read_file(path)


def _corpus_file(name: str, data_dir: Path | None) -> Path | None:
    """Return where a corpus lies; None: it is generated."""
    if name not in CORPORA:
        raise UnknownCorpus(name, known=CORPORA)
    if name == GENERATED:
        return None
    path = None if data_dir is None else data_dir / f"{name}.jsonl"
    if path is None or not path.is_file():
        raise CorpusMissing(name, looked_in=data_dir, source=SOURCES[name])
    return path


_letters = cache(letters)  # pure, and read by every site of a demo


def _rows(data: DataConfig) -> Iterable[Sentence | BrokenLine]:
    path = data.path or _corpus_file(data.corpus or "", data.data_dir)
    return _letters() if path is None else read_rows(path)


def _is_asked_for(sentence: Sentence, data: DataConfig) -> bool:
    of_site = data.site is None or sentence.site in {None, data.site}
    return of_site and sentence.split in {None, data.split}


def _sites(sentences: Iterable[Sentence]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s.site for s in sentences if s.site is not None))


def _unknown_label(
    sentence: Sentence, source: str, labels: Sequence[str] | None
) -> UnknownLabel | None:
    """Return what is wrong with the first tag whose label is not in `labels`; None takes any."""
    for label in map(label_of, sentence.tags):
        if labels is not None and label is not None and label not in labels:
            return UnknownLabel(label, source=source, line=sentence.line, known=labels)
    return None
