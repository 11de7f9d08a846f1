"""The tutorial's transformer is clipped exactly, sentence by sentence, as a gateway does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from private_step import ClippedGradients
from tasks.loading import load_task
from tasks.task import DataConfig
from tests.docs.blocks import blocks
from tests.unit.private_step.naive import clipped_sum, doubled, gradients

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "hugging-face-lora.md"
LABELS = ("Drug", "Disease")
FLOAT32 = 1e-6  # of the clipping norm
ROWS = [
    ("He stopped folic acid", "O O B-Drug I-Drug"),
    ("No change", "O O"),
    ("gout", "B-Disease"),
    (
        "She takes ramipril for gout and type 2 diabetes",
        "O O B-Drug O B-Disease O" + " B-Disease" + 2 * " I-Disease",
    ),
]


@pytest.fixture
def task(tmp_path):
    """The page's own file."""
    (block,) = (block for block in blocks(PAGE) if block.title == "lora_ner.py")
    (tmp_path / block.title).write_text(block.text)
    return load_task(f"{tmp_path / block.title}:TASK")


def test_the_clipped_sum_over_sentences_is_the_naive_one(task, tmp_path):
    path = tmp_path / "notes.jsonl"
    rows = (json.dumps({"text": text, "tags": tags}) for text, tags in ROWS)
    path.write_text("\n".join(rows))
    model = task.build_model(LABELS)
    _away_from_zero(model)
    batch = task.read(DataConfig(path=path), LABELS, tmp_path).batch(range(len(ROWS)))
    exact_model, exact_batch = doubled(model, batch)
    per_sentence = gradients(exact_model, task.loss, exact_batch)
    clipping_norm = float(per_sentence.norm(dim=1).median())
    clipped = ClippedGradients(model, task.loss)
    norms = clipped.add(batch, clipping_norm)
    expected = clipped_sum(per_sentence, norms, clipping_norm * (1 - clipped.margin))
    assert float((clipped.total - expected).abs().max()) <= FLOAT32 * clipping_norm
    assert norms.tolist() == pytest.approx(per_sentence.norm(dim=1).tolist(), rel=2e-3)


def _away_from_zero(model: torch.nn.Module) -> None:
    """Half of an adapter begins at zero, and so would half of what is compared."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02, generator=generator)
