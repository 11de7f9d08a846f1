"""A model's card in Markdown."""

from __future__ import annotations

from common.model_page import task_facts


def test_no_label_breaks_the_table():
    facts = task_facts("ner", "d" * 64, ("A|B", "C\nD"), 12, 3)
    assert facts[1] == r"| labels | A\|B, C D |"
