"""The public corpora, where the machine has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.ner.corpora import corpus_labels, corpus_sites, site_sizes

DATA = os.environ.get("FEDGATE_DATA")


@pytest.mark.skipif(DATA is None, reason="FEDGATE_DATA names no folder with corpora")
@pytest.mark.parametrize(
    ("name", "labels", "sites", "sentences"),
    [
        ("bc5cdr", ("Chemical", "Disease"), 8, 8227),
        ("en-sites", ("LOC", "ORG", "PER"), 15, 16362),
    ],
)
def test_a_corpus_is_read_whole(name, labels, sites, sentences):
    folder = Path(str(DATA))
    assert corpus_labels(name, folder) == labels
    assert len(corpus_sites(name, folder)) <= sites
    assert sum(site_sizes(name, folder).values()) == sentences
