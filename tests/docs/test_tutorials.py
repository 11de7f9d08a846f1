"""Each tutorial runs as written, in an empty folder, and ends with a private model that learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.model_folder import read_model
from common.plan import Unit
from tests.docs.running import LIMIT_S, run_page

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
LEARNT = {  # F1 that a model without training is below by far, and no run has missed
    "own-data": (Unit.DOCUMENT, 0.8),
    "own-model": (Unit.EXAMPLE, 0.6),
    "hugging-face-lora": (Unit.EXAMPLE, 0.5),
    "tabular-data": (Unit.PERSON, 0.6),
    "from-flower": (Unit.EXAMPLE, 0.6),
}


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("name", LEARNT)
def test_a_tutorial_runs_as_written_and_ends_with_a_private_model(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("t")  # short: the path of a socket has room for 107 bytes
    run_page(TUTORIALS / f"{name}.md", folder)
    _, card = read_model(folder / "model")
    unit, learnt = LEARNT[name]
    assert card.scores["test"] > learnt
    assert card.unit is unit
    assert card.epsilon is not None
    assert 0 < card.epsilon <= 8


def test_every_tutorial_is_run():
    pages = {page.stem for page in TUTORIALS.glob("*.md")} - {"index"}
    assert pages == LEARNT.keys()
