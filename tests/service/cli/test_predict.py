"""What a model finds, in colour and in words."""

from __future__ import annotations

import pytest

from cli.predict_command import TextUnreadable, _lines, coloured

LABELS = ("Disease", "Drug")


@pytest.mark.parametrize(
    ("words", "tags", "shown"),
    [
        ("no gout", "O O", "no gout"),
        ("no gout", "O B-Disease", "no gout [Disease]"),
        ("gout", "B-Disease", "gout [Disease]"),
        ("heart failure today", "B-Disease I-Disease O", "heart failure [Disease] today"),
        ("gout warfarin", "B-Disease B-Drug", "gout [Disease] warfarin [Drug]"),
        ("gout gout", "B-Disease B-Disease", "gout [Disease] gout [Disease]"),
        ("x", "B-Other", "x [Other]"),
    ],
)
def test_each_entity_has_its_label_beside_it_and_no_word_is_lost(words, tags, shown):
    assert coloured(words.split(), tags.split(), LABELS).plain == shown


def test_each_label_has_a_colour_of_its_own():
    line = coloured(["gout", "warfarin"], ["B-Disease", "B-Drug"], LABELS)
    styles = [str(span.style) for span in line.spans]
    assert styles == ["bold cyan", "cyan", "bold yellow", "yellow"]


def test_a_file_that_is_no_text_is_named(tmp_path):
    with pytest.raises(TextUnreadable, match="No such file"):
        _lines(tmp_path / "none.txt")
    (tmp_path / "bytes").write_bytes(b"ab\xff")
    with pytest.raises(TextUnreadable, match="byte 2 is not UTF-8"):
        _lines(tmp_path / "bytes")
