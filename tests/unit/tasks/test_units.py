"""Which sentences are one unit, and what is said of those that do not say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.plan import Unit
from tasks.ner.corpora import read_corpus, site_sizes
from tasks.ner.sentences import Sentence
from tasks.ner.units import counts, rows_of_units
from tasks.task import UnitNotCarried


def sentence(document: str | None = None, *persons: str, line: int = 0) -> Sentence:
    return Sentence(("well",), ("O",), document=document, persons=persons, line=line)


def units(sentences: list[Sentence], unit: Unit) -> list[tuple[int, ...]]:
    return [tuple(rows) for rows in rows_of_units(sentences, unit, "notes.jsonl")]


def test_each_sentence_is_its_own_example_whatever_it_carries():
    assert units([sentence("a"), sentence("a"), sentence()], Unit.EXAMPLE) == [(0,), (1,), (2,)]


def test_the_sentences_of_a_document_are_one_unit():
    notes = [sentence("a"), sentence("b"), sentence("a"), sentence("c"), sentence("a")]
    assert units(notes, Unit.DOCUMENT) == [(1,), (3,), (0, 2, 4)]


def test_a_persons_documents_are_one_unit():
    notes = [sentence("a", "Ann"), sentence("b", "Ann"), sentence("c", "Bob")]
    assert units(notes, Unit.PERSON) == [(2,), (0, 1)]


def test_a_sentence_of_several_persons_is_in_no_ones_unit():
    notes = [sentence("a", "Ann"), sentence("b", "Ann", "Bob"), sentence("c", "Bob")]
    assert units(notes, Unit.PERSON) == [(0,), (2,)]


PERSONS = st.lists(st.sampled_from("ABCDE"), min_size=1, max_size=3, unique=True)


@given(owned=st.lists(PERSONS, min_size=1, max_size=30), gone=st.sampled_from("ABCDE"))
def test_removing_a_person_with_all_that_is_theirs_changes_no_other_unit(owned, gone):
    notes = [sentence(None, *persons, line=n) for n, persons in enumerate(owned)]
    left = [note for note in notes if gone not in note.persons]

    def lines(some: list[Sentence]) -> set[tuple[int, ...]]:
        return {tuple(some[row].line for row in unit) for unit in units(some, Unit.PERSON)}

    removed = lines(notes) - lines(left)
    assert lines(left) <= lines(notes)
    assert len(removed) <= 1


@pytest.mark.parametrize("unit", [Unit.DOCUMENT, Unit.PERSON])
def test_one_line_without_its_key_is_enough_to_be_refused(unit):
    notes = [sentence("a", "Ann", line=7), sentence(line=3), sentence("b", "Bob", line=9)]
    with pytest.raises(UnitNotCarried) as refused:
        units(notes, unit)
    said = str(refused.value)
    assert said.startswith(f"notes.jsonl, line 3: no {unit} is named, and the plan's unit is")
    assert f"give every JSON line its `{unit}`" in said
    assert "ask the operator for a plan of another unit" in said


def test_of_many_lines_the_first_is_named_and_the_rest_are_counted():
    with pytest.raises(UnitNotCarried, match="line 2 and 2 more: no document"):
        units([sentence(line=5), sentence(line=2), sentence(line=8)], Unit.DOCUMENT)


def test_what_is_carried_is_counted():
    notes = [sentence("a", "Ann"), sentence("a", "Ann", "Bob")]
    assert counts(notes, "x") == {Unit.EXAMPLE: 2, Unit.DOCUMENT: 1, Unit.PERSON: 1}
    assert counts([*notes, sentence("b")], "x") == {Unit.EXAMPLE: 3, Unit.DOCUMENT: 2}


def test_the_letters_carry_every_unit():
    sizes = {unit: site_sizes("letters", unit=unit)["harbour-infirmary"] for unit in Unit}
    assert sizes == {Unit.EXAMPLE: 1600, Unit.DOCUMENT: 320, Unit.PERSON: 214}
    train = [s for s in read_corpus("letters") if s.site == "harbour-infirmary"]
    train = [s for s in train if s.split == "train"]
    for unit in Unit:
        assert sorted(row for rows in units(train, unit) for row in rows) == list(range(1600))
