"""Which sentences are one unit of privacy: a sentence, a document, or what one person owns alone.

A sentence that several persons own is in no person's unit. If it were given to one of them, the
removal of another, with whom it goes, would change that one's unit as well: two units would move,
and the sum by up to three clipping norms instead of one. Left out, it moves nobody's.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from common.plan import Unit
from tasks.task import UnitNotCarried, each_alone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.ner.sentences import Sentence

MEND = {
    Unit.DOCUMENT: "give every JSON line its `document`, or begin each document of a CoNLL file "
    "with a -DOCSTART- line",
    Unit.PERSON: "give every JSON line its `person`, or a list of them; CoNLL files cannot say",
}


def rows_of_units(
    sentences: Sequence[Sentence], unit: Unit, source: str
) -> Sequence[Sequence[int]]:
    """Return the rows of each unit, those of one size together and each in rising order.

    Args:
        sentences: all rows; in order of length, which leaves those of alike length together.
        unit: what is protected.
        source: what messages call the data.

    Raises:
        UnitNotCarried: a sentence does not name its document, or no person; the first in the file
            is named.
    """
    if unit is Unit.EXAMPLE:
        return each_alone(len(sentences))
    rows = defaultdict[str, list[int]](list)
    nameless = []
    for row, sentence in enumerate(sentences):
        keys = _keys(sentence, unit)
        if not keys:
            nameless.append(sentence.line)
        elif len(keys) == 1:
            rows[keys[0]].append(row)
    if nameless:
        more = f" and {len(nameless) - 1} more" if len(nameless) > 1 else ""
        where = f"{source}, line {min(nameless)}{more}"
        raise UnitNotCarried(unit, where=where, mend=MEND[unit])
    return tuple(sorted(rows.values(), key=lambda unit_rows: (len(unit_rows), unit_rows[-1])))


def counts(sentences: Sequence[Sentence], source: str) -> Mapping[Unit, int]:
    """Return how many units there are, of each kind that every sentence carries."""
    found = {}
    for unit in Unit:
        if unit is Unit.EXAMPLE or all(_keys(sentence, unit) for sentence in sentences):
            found[unit] = len(rows_of_units(sentences, unit, source))
    return found


def _keys(sentence: Sentence, unit: Unit) -> tuple[str, ...]:
    if unit is Unit.PERSON:
        return sentence.persons
    return () if sentence.document is None else (sentence.document,)
