from __future__ import annotations

import pytest

from tasks.ner import download
from tasks.ner.errors import CorpusChanged, UnknownCorpus


def ours(url):
    del url
    return b"on\tO\nvelorin\tB-Drug\n\nwell\tO\n"


def test_content_that_is_not_the_pinned_is_refused_and_not_kept(tmp_path):
    with pytest.raises(CorpusChanged, match="pinned is"):
        download.fetch("bc5cdr", tmp_path, ours)
    assert not list(tmp_path.iterdir())


def test_a_corpus_without_a_pinned_download_is_refused(tmp_path):
    with pytest.raises(UnknownCorpus):
        download.fetch("wnut17", tmp_path, ours)


def test_columns_are_converted_to_sites_and_splits(tmp_path, monkeypatch):
    lines = list(download.bc5cdr_lines(ours))
    digest = download.hashlib.sha256("".join(lines).encode()).hexdigest()
    monkeypatch.setattr(download, "BC5CDR_SHA256", digest)
    path = download.fetch("bc5cdr", tmp_path / "new", ours)
    assert path.read_text().splitlines()[0] == (
        '{"site":"lab0","split":"train","text":"on velorin","tags":"O B-Drug"}'
    )
    assert len(lines) == 6
