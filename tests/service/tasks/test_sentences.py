from __future__ import annotations

import json

import pytest

from tasks.ner.errors import BrokenLine, DataFileMissing, UnknownFormat
from tasks.ner.sentences import Sentence, read_file, read_rows

GOOD = '{"text": "on velorin", "tags": "O B-Drug", "site": "a", "split": "dev"}'


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_json_line_becomes_a_sentence(tmp_path):
    (sentence,) = read_file(write(tmp_path, "a.jsonl", GOOD + "\n\n"))
    assert sentence == Sentence(("on", "velorin"), ("O", "B-Drug"), "a", "dev", line=1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "the line: is not JSON"),
        ('{"text": "on"}', "tags: field required"),
        ('{"text": "on", "tags": "O", "size": 1}', "size: extra inputs are not permitted"),
        ('{"text": "on", "tags": "O", "split": "all"}', "split: input should be"),
        ('{"text": "on", "tags": "O", "document": ""}', "document: string should have"),
        ('{"text": "on", "tags": "O", "person": []}', "person."),
        ('{"text": "on", "tags": "O", "person": ["a", 1]}', "person."),
        ('{"text": "on it", "tags": "O"}', "2 tokens and 1 tags"),
        ('{"text": "on  it", "tags": "O O O"}', "token 2 is empty"),
        ('{"text": "on", "tags": "Drug"}', "tag 1 is none of O, B-label and I-label"),
        ('{"text": "on it", "tags": "O I-Drug"}', "tag 2 is an I- with nothing to continue"),
    ],
)
def test_a_broken_line_is_named_with_its_file_and_number(tmp_path, line, reason):
    path = write(tmp_path, "a.jsonl", f"{GOOD}\n{line}\n")
    with pytest.raises(BrokenLine) as refused:
        read_file(path)
    assert f"{path}, line 2: {reason}" in str(refused.value)


def test_bytes_that_are_not_text_are_a_broken_line(tmp_path):
    with pytest.raises(BrokenLine, match="line 2: byte 0 is not UTF-8"):
        read_file(write(tmp_path, "a.jsonl", GOOD.encode() + b"\n\xff\n"))


def test_a_broken_line_shows_nothing_of_its_text(tmp_path):
    row = json.dumps({"text": "Ann Secret", "tags": "O"})
    with pytest.raises(BrokenLine) as refused:
        read_file(write(tmp_path, "a.jsonl", row))
    assert "Secret" not in str(refused.value)


def test_rows_go_on_after_a_line_that_cannot_be_read(tmp_path):
    rows = read_rows(write(tmp_path, "a.jsonl", f"{{\n{GOOD}\n".encode() + b"\xff\n"))
    assert [row.line for row in rows] == [1, 2, 3]


def test_a_sentence_with_a_column_that_cannot_be_read_is_left_out_whole(tmp_path):
    text = b"on O\nvelorin\n\xff O\n\nwell I-Drug\n\nwell O\n"
    *broken, good = read_rows(write(tmp_path, "a.conll", text))
    assert [(each.line, each.reason.split(";")[0]) for each in broken] == [
        (2, "one column"),
        (3, "byte 0 is not UTF-8"),
        (5, "tag 1 is an I- with nothing to continue"),
    ]
    assert good == Sentence(("well",), ("O",), line=7)


def test_columns_become_sentences_at_blank_lines(tmp_path):
    text = "-DOCSTART- O\n\non X O\nvelorin X B-Drug\n\n\nwell X O\n"
    first, second = read_file(write(tmp_path, "a.conll", text))
    assert (first.tokens, first.tags, first.line) == (("on", "velorin"), ("O", "B-Drug"), 3)
    assert (second.tokens, second.document, second.line) == (("well",), "1", 7)


def test_a_json_line_names_its_document_and_whose_it_is(tmp_path):
    fields = ('"person": "Ann"', '"person": ["Ann", "Bob", "Ann"]', '"document": "d"')
    rows = [f'{{"text": "on", "tags": "O", {each}}}' for each in fields]
    one, several, none = read_file(write(tmp_path, "a.jsonl", "\n".join(rows)))
    assert (one.document, one.persons) == (None, ("Ann",))
    assert several.persons == ("Ann", "Bob")
    assert (none.document, none.persons) == ("d", ())


@pytest.mark.parametrize("between", ["\n-DOCSTART- O\n\n", "-DOCSTART- O\n", "\n-DOCSTART-\n"])
def test_documents_end_where_the_next_begins(tmp_path, between):
    text = between.join(["on O\n", "well O\n\nill O\n", "off O\n"])
    found = read_file(write(tmp_path, "a.conll", text))
    assert [(*s.tokens, s.document) for s in found] == [
        ("on", None),  # before the first mark: it does not say
        ("well", "1"),
        ("ill", "1"),
        ("off", "2"),
    ]


def test_a_single_column_is_a_broken_line(tmp_path):
    with pytest.raises(BrokenLine, match="line 2: one column"):
        read_file(write(tmp_path, "a.conll", "on O\nvelorin\n"))


def test_a_missing_file_and_an_unknown_format_are_told_apart(tmp_path):
    with pytest.raises(DataFileMissing):
        read_file(tmp_path / "none.jsonl")
    with pytest.raises(UnknownFormat):
        read_file(write(tmp_path, "a.csv", ""))


def test_the_content_digest_depends_on_words_and_tags_only():
    here = Sentence(("a", "b"), ("O", "O"), site="x", line=1)
    assert here.content_digest() == Sentence(("a", "b"), ("O", "O")).content_digest()
    assert here.content_digest() != Sentence(("a b",), ("O",)).content_digest()
    assert len(here.content_digest()) == 32
