"""What the demo runs: for whom, with how many units, with which values."""

from __future__ import annotations

import json

import pytest

from cli.demo.settings import DemoPrivacy, DemoSettings, demo_settings
from common.plan import Unit
from tasks.task import UnitNotCarried


def settings(corpus: str = "letters", unit: Unit | None = None, **changes) -> DemoSettings:
    privacy = DemoPrivacy(8.0, 1e-5, unit)
    given = {"gateways": None, "rounds": None, "data_dir": None}
    return demo_settings(corpus, privacy=privacy, **(given | changes))


@pytest.mark.parametrize(
    ("unit", "stated", "declared"),
    [
        (None, "document", [320, 260, 200]),
        (Unit.DOCUMENT, "document", [320, 260, 200]),
        (Unit.PERSON, "person", [214, 174, 134]),
        (Unit.EXAMPLE, "example", [1600, 1300, 1000]),
    ],
)
def test_the_letters_are_trained_by_document_unless_another_unit_is_asked_for(
    unit, stated, declared
):
    tables = settings(unit=unit).plan()
    assert tables["privacy"] == {"unit": stated, "delta": 1e-5, "target_epsilon": 8.0}
    assert [site["declared_units"] for site in tables["participants"]] == declared


def test_a_corpus_without_keys_offers_the_example_only(tmp_path):
    rows = [{"text": "no gout", "tags": "O B-Disease", "site": "a", "split": "train"}]
    (tmp_path / "bc5cdr.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert settings("bc5cdr", data_dir=tmp_path).unit is Unit.EXAMPLE
    with pytest.raises(UnitNotCarried, match="bc5cdr, line 1: no document is named"):
        settings("bc5cdr", Unit.DOCUMENT, data_dir=tmp_path)
