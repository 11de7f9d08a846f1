from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ner import conditioning, encoder
from tasks.ner.conditioning import conditioned, public_statistics
from tasks.ner.encoder import HIDDEN, LAYERS, MiniLM
from tasks.ner.errors import EncoderChanged, EncoderMissing
from tasks.ner.lexical import WIDTH, lexical_vectors, shape

lengths = st.lists(st.integers(1, encoder.WORD_PIECES), max_size=200)


@given(lengths)
@settings(deadline=None)
def test_windows_cover_every_word_once_within_the_limit(lengths):
    cuts = list(encoder.cuts(lengths))
    assert [place for start, end in cuts for place in range(start, end)] == [*range(len(lengths))]
    assert all(sum(lengths[start:end]) <= encoder.WINDOW_PIECES for start, end in cuts)


@given(lengths)
@settings(deadline=None)
def test_batches_keep_every_window_in_order(lengths):
    windows = [encoder.Window(row, ((1,) * n,)) for row, n in enumerate(sorted(lengths))]
    batches = list(encoder.batched(windows))
    assert [window for batch in batches for window in batch] == windows


def test_a_folder_without_the_encoder_says_how_to_get_it(tmp_path):
    with pytest.raises(EncoderMissing, match="pip install"):
        MiniLM(tmp_path).encode([["a"]])


def test_a_changed_encoder_is_refused(tmp_path):
    for name in encoder.FILES:
        (tmp_path / name).write_bytes(b"other")
    with pytest.raises(EncoderChanged, match="every site needs"):
        MiniLM(tmp_path).encode([["a"]])


@given(st.lists(st.text(max_size=20), max_size=5))
@settings(max_examples=25, deadline=None)
def test_spelling_vectors_have_mean_square_one(words):
    vectors = lexical_vectors(words)
    assert vectors.shape == (len(words), WIDTH)
    assert np.allclose((vectors**2).mean(axis=1), 1, atol=1e-4)


def test_like_spellings_have_like_vectors():
    one, other, far = lexical_vectors(["velorin", "valorin", "GP-7"])
    assert one @ other > 2 * abs(one @ far)


def test_a_shape_names_runs_of_letters_digits_and_marks():
    assert shape("McArdle-12") == "XxXx-d"


def test_conditioning_centres_public_words_and_keeps_their_scale():
    statistics = public_statistics()
    scales = torch.linalg.eigvalsh(statistics.whitening)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(len(LAYERS), 5000, HIDDEN, generator=generator)
    inverse = torch.linalg.inv(statistics.whitening)
    words = statistics.mean[:, None] + drawn @ inverse
    assert (scales > 0).all()
    assert torch.allclose(conditioned(words, statistics), drawn, atol=1e-2)


def test_a_word_is_conditioned_alike_in_any_company():
    words = torch.randn(len(LAYERS), 4, HIDDEN, generator=torch.Generator().manual_seed(1))
    together = conditioned(words, public_statistics())
    alone = conditioned(words[:, 2:3], public_statistics())
    assert torch.allclose(together[:, 2:3], alone, atol=1e-4)


def test_changed_statistics_are_refused(tmp_path, monkeypatch):
    changed = tmp_path / conditioning.FILE.name
    changed.write_bytes(b"other")
    monkeypatch.setattr(conditioning, "FILE", changed)
    with pytest.raises(EncoderChanged, match="every site needs"):
        public_statistics.__wrapped__()


def test_other_statistics_give_the_encoder_another_name(monkeypatch):
    before = MiniLM().digest()
    monkeypatch.setattr(encoder, "SHA256", "0" * 64)
    assert MiniLM().digest() != before
