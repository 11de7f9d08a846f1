from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.func import functional_call, grad, vmap

from tasks.ner.dataset import LONGEST, PADDING, NerDataset
from tasks.ner.features import encoded

LABELS = ("Drug", "Disease")
SHARED = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def dataset(encoder):
    """Make a dataset of sentences, without a cache."""
    return lambda sentences: NerDataset(sentences, LABELS, encoder, None)


def some_model(task):
    model = task.build_model(LABELS)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        model.linear.weight.normal_(generator=generator)
    return model


def test_sentences_lie_in_order_of_length(sentences, dataset):
    assert [len(s.tokens) for s in dataset(sentences).sentences] == [1, 2, 5, 7]


def test_a_batch_is_padded_to_its_longest_sentence(sentences, dataset):
    features, tags = dataset(sentences).batch([0, 2])
    assert features.shape[:2] == tags.shape == (2, 5)
    assert (tags[0, 1:] == PADDING).all()
    assert (features[0, 1:] == 0).all()


def test_an_empty_batch_has_no_examples_and_no_loss(sentences, task, dataset):
    batch = dataset(sentences).batch([])
    assert len(batch[0]) == 0
    assert task.loss(task.build_model(LABELS), batch).shape == (0,)


def test_a_word_knows_its_neighbours(dataset, tagged):
    here, alone = dataset([tagged("on/O velorin/O")]), dataset([tagged("velorin/O")])
    difference = here.batch([0])[0][0, 1] != alone.batch([0])[0][0, 0]
    assert difference.any()
    assert not difference[: 8 + 192].any()  # the encoder's part and the word's own spelling


@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=4))
@SHARED
def test_a_sentence_has_the_same_loss_in_any_company(rows, sentences, task, dataset):
    data, model = dataset(sentences), some_model(task)
    together = task.loss(model, data.batch(rows))
    alone = torch.cat([task.loss(model, data.batch([row])) for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)


@given(padding=st.integers(1, 5), junk=st.floats(-100, 100))
@SHARED
def test_padding_changes_no_loss_and_no_gradient(padding, junk, sentences, task, dataset):
    features, tags = dataset(sentences).batch([3])
    longer = torch.cat([features, torch.full((1, padding, features.shape[2]), junk)], dim=1)
    padded_tags = torch.cat([tags, torch.full((1, padding), PADDING)], dim=1)
    results = []
    for batch in ((features, tags), (longer, padded_tags)):
        model = some_model(task)
        loss = task.loss(model, batch)
        loss.sum().backward()
        results.append((loss.detach(), model.linear.weight.grad))
    assert torch.allclose(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], atol=1e-5)


def test_gradients_of_single_examples_come_through_vmap(sentences, task, dataset):
    data, model = dataset(sentences), some_model(task)
    features, tags = data.batch([0, 1, 2, 3])
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights, features, tags):
        def called(x):
            return functional_call(model, weights, (x,))

        return task.loss(called, (features[None], tags[None]))[0]

    rows = vmap(grad(loss), in_dims=(None, 0, 0))(weights, features, tags)["linear.weight"]
    for place in range(4):
        model.zero_grad()
        task.loss(model, data.batch([place])).sum().backward()
        assert torch.allclose(rows[place], model.linear.weight.grad, atol=1e-5)


def test_training_reads_an_overlong_sentence_to_the_limit_and_scoring_to_its_end(dataset, tagged):
    data = dataset([tagged(" ".join(["word/O"] * (LONGEST + 9)))])
    assert data.batch([0])[1].shape == (1, LONGEST)
    assert data.features([0]).shape[1] == LONGEST + 9


def test_features_are_computed_once_and_then_found(tmp_path, sentences, make_encoder):
    encoder, words = make_encoder(), [s.tokens for s in sentences]
    first = encoded(words, encoder, tmp_path)
    second = encoded(words, encoder, tmp_path)
    assert encoder.calls == 1
    assert (first == second).all()
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_other_words_are_not_found_in_the_cache(tmp_path, make_encoder):
    encoder = make_encoder()
    encoded([["a", "b"]], encoder, tmp_path)
    encoded([["a"], ["b"]], encoder, tmp_path)
    assert encoder.calls == 2


def test_content_digests_follow_the_datasets_order(sentences, dataset):
    data = dataset(sentences)
    assert data.content_digests() == [s.content_digest() for s in data.sentences]
