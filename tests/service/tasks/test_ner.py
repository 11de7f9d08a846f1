from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

from tasks.ner import TASK, NerTask
from tasks.ner.baselines import alone, pooled
from tasks.ner.corpora import corpus_labels, corpus_sites, site_sizes
from tasks.ner.errors import CorpusMissing, NoSentences, UnknownCorpus, UnknownLabel
from tasks.ner.scoring import entity_scores
from tasks.task import DataConfig, Task

LABELS = ("Drug", "Disease")
ROWS = [
    {"text": "on velorin today", "tags": "O B-Drug O", "site": "a", "split": "train"},
    {"text": "bad gout", "tags": "B-Disease I-Disease", "site": "a", "split": "train"},
    {"text": "no gout", "tags": "O B-Disease", "site": "b", "split": "train"},
    {"text": "velorin for gout", "tags": "B-Drug O B-Disease", "site": "a", "split": "dev"},
]


@pytest.fixture
def data_dir(tmp_path):
    """A data folder in which `wnut17` is four lines of our own."""
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "wnut17.jsonl").write_text(text)
    return tmp_path


@pytest.fixture
def site_a(data_dir):
    return DataConfig(corpus="wnut17", site="a", data_dir=data_dir)


def test_the_task_fits_the_protocol():
    assert isinstance(TASK, Task)


def test_the_digest_names_code_and_encoder(task):
    assert task.digest() == task.digest()
    assert task.digest() != NerTask().digest()


def test_the_initial_model_is_the_same_at_every_call_and_says_outside(task):
    first, second = task.build_model(LABELS), task.build_model(LABELS)
    assert torch.equal(first.linear.weight, second.linear.weight)
    assert task.predict(first, [["on", "velorin"], []], LABELS) == [["O", "O"], []]


def test_a_check_counts_what_a_site_has(task, site_a):
    report = task.check(site_a, LABELS)
    assert (report.sentences, report.words, report.overlong) == (2, 5, 0)
    assert report.per_label == {"Drug": 1, "Disease": 1}
    assert report.per_site == {"a": 2}


def test_a_check_loads_no_encoder(task, site_a, encoder):
    task.check(site_a, LABELS)
    assert encoder.calls == 0


def test_a_site_with_another_label_is_told_which_and_where(task, site_a):
    with pytest.raises(UnknownLabel, match="line 2: label 'Disease' is not among"):
        task.check(site_a, ("Drug",))


def test_a_site_without_sentences_is_told_the_sites(task, data_dir):
    nowhere = DataConfig(corpus="wnut17", site="c", data_dir=data_dir)
    with pytest.raises(NoSentences, match="its sites are a, b"):
        task.check(nowhere, LABELS)


def test_a_users_own_file_needs_no_site_and_no_split(task, tmp_path):
    path = tmp_path / "mine.conll"
    path.write_text("on O\nvelorin B-Drug\n")
    assert task.check(DataConfig(path=path, split="test"), LABELS).sentences == 1


def test_a_corpus_that_is_not_there_is_told_apart_from_an_unknown_one(task, tmp_path):
    with pytest.raises(CorpusMissing, match=r"has no bc5cdr\.jsonl"):
        task.check(DataConfig(corpus="bc5cdr", data_dir=tmp_path), LABELS)
    with pytest.raises(CorpusMissing, match="no data folder was named"):
        task.check(DataConfig(corpus="bc5cdr"), LABELS)
    with pytest.raises(UnknownCorpus, match="choose one of letters"):
        task.check(DataConfig(corpus="none"), LABELS)


@pytest.mark.parametrize("fields", [{}, {"corpus": "letters", "path": "a.jsonl"}])
def test_the_configuration_names_exactly_one_source(fields):
    with pytest.raises(ValidationError, match="exactly one"):
        DataConfig(**fields)


def test_a_corpus_tells_its_sites_labels_and_sizes(data_dir):
    assert corpus_sites("wnut17", data_dir) == ("a", "b")
    assert corpus_labels("wnut17", data_dir) == ("Disease", "Drug")
    assert site_sizes("wnut17", data_dir) == {"a": 2, "b": 1}


def test_baselines_learn_and_are_the_same_under_a_seed(task, site_a, tmp_path):
    data = task.read(site_a, LABELS, tmp_path / "cache")
    first, second = (pooled(task, [data], LABELS, epochs=30, seed=3) for _ in range(2))
    assert torch.equal(first.linear.weight, second.linear.weight)
    assert task.score(first, data).f1 == 1.0
    assert set(alone(task, {"a": data}, LABELS, epochs=1)) == {"a"}


def test_an_entity_counts_only_with_its_label_and_both_ends():
    right = [["B-Drug", "O", "B-Disease", "I-Disease"]]
    scores = entity_scores(right, [["B-Drug", "O", "B-Disease", "O"]])
    assert (scores.f1, scores.precision, scores.recall, scores.support) == (0.5, 0.5, 0.5, 2)
    assert scores.per_label == {"Drug": 1.0, "Disease": 0.0}


def test_scores_of_nothing_are_zero():
    assert entity_scores([["O"]], [["O"]]).support == 0


def test_another_tasks_dataset_is_refused(task):
    with pytest.raises(TypeError, match="its own datasets"):
        task.score(task.build_model(LABELS), [])
