from __future__ import annotations

from collections import Counter

import pytest
from blake3 import blake3

from tasks.ner.corpora import read_corpus
from tasks.ner.letters import HOSPITALS, LABELS, SIZES
from tasks.ner.sentences import Sentence
from tasks.ner.tags import first_illegal, label_of


@pytest.fixture(scope="module")
def corpus() -> tuple[Sentence, ...]:
    """The whole generated corpus."""
    return read_corpus("letters")


def entities(sentences):
    found = set()
    for sentence in sentences:
        pairs = [*zip(sentence.tokens, sentence.tags, strict=True), ("", "O")]
        words = []
        for word, tag in pairs:
            if words and not tag.startswith("I-"):
                found.add(" ".join(words).lower())
                words = []
            if tag != "O":
                words.append(word)
    return found


def test_every_site_writes_as_much_as_it_says(corpus):
    sizes = Counter(s.site for s in corpus if s.split == "train")
    assert sizes == {hospital.name: hospital.sentences for hospital in HOSPITALS}
    assert Counter(s.split for s in corpus if s.split != "train") == SIZES


def test_tags_are_legal_and_carry_the_stated_labels(corpus):
    assert all(first_illegal(s.tags) is None for s in corpus)
    assert {label_of(tag) for s in corpus for tag in s.tags} == {None, *LABELS}


def test_no_entity_of_dev_or_test_occurs_in_training(corpus):
    by_split = {
        split: entities(s for s in corpus if s.split == split) for split in ("train", "dev", "test")
    }
    assert not by_split["train"] & (by_split["dev"] | by_split["test"])
    assert not by_split["dev"] & by_split["test"]


def test_every_sentence_has_a_letter_and_every_letter_one_patient(corpus):
    patients = {}
    for sentence in corpus:
        assert patients.setdefault(sentence.document, sentence.persons) == sentence.persons
    assert len(set(patients.values())) < len(patients)  # some patients have two letters


def test_the_corpus_is_the_same_everywhere(corpus):
    digests = b"".join(sentence.content_digest() for sentence in corpus)
    assert blake3(digests).hexdigest()[:16] == "61752c86f1563d20"
