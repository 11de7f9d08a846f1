"""Writing one generated letter: phrases, their slots, and a typist's habits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from blake3 import blake3

from tasks.ner import letters_text as text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.ner.sentences import Split

Item = TypeVar("Item")
Words = list[tuple[str, str]]  # each word with its tag
SHARE_OF_SPLIT: Mapping[str, tuple[int, ...]] = {  # which residues modulo 10 a split owns
    "train": (0, 1, 2, 3, 4, 5),
    "dev": (6, 7),
    "test": (8, 9),
}
OWN_PHRASES = 40  # percent of sentences about the specialty
OPEN_PHRASES = 34  # percent that say little about what a name is; the rest is the site's own
LOWERED = 30  # percent of sentences typed without capitals
SLIPS = 8  # percent of words with a typing slip
CAPITALS = "ABCDEFGHIKLMNPRST"  # of short forms
LETTERS_TO_SLIP = 5  # shorter words are typed right


@dataclass(frozen=True)
class Hospital:
    """One site: what it treats, how it writes, how much."""

    name: str
    specialties: tuple[text.Specialty, ...]
    phrases: tuple[tuple[str, ...], ...]
    sentences: int  # in the training split


class Dice:
    """Chance that is the same everywhere: the hash of a key and a counter."""

    def __init__(self, key: str) -> None:
        self._key, self._rolls = key, 0

    def below(self, sides: int) -> int:
        """Return a whole number from 0 to `sides` - 1."""
        self._rolls += 1
        digest = blake3(f"{self._key} {self._rolls}".encode()).digest(length=8)
        return int.from_bytes(digest, "big") % sides

    def chance(self, percent: int) -> bool:
        """Return True in `percent` of a hundred rolls."""
        return self.below(100) < percent

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of `items`, all alike."""
        return items[self.below(len(items))]


class Writer:
    """Writes the sentences of one letter; the patient and the hospital stay the same."""

    def __init__(self, site: Hospital, split: Split, dice: Dice) -> None:
        self._dice, self._split = dice, split
        self._specialty = dice.pick(site.specialties)
        self._phrases = dice.pick(site.phrases)
        self._patient = self._own(text.SURNAMES)

    def sentence(self) -> Words:
        """Return the words of one sentence with their IOB2 tags."""
        phrase = self._dice.pick(self._kind_of_phrase())
        words = [pair for part in phrase.split(" ") for pair in self._fill(part)]
        lowered = self._dice.chance(LOWERED)
        return [(self._typed(word, lowered=lowered), tag) for word, tag in words]

    def _kind_of_phrase(self) -> tuple[str, ...]:
        roll = self._dice.below(100)
        if roll < OWN_PHRASES:
            return self._specialty.phrases
        return text.ANYWHERE if roll < OWN_PHRASES + OPEN_PHRASES else self._phrases

    def _fill(self, part: str) -> Words:
        if not part.startswith("{"):
            return [(part, "O")]
        return _SLOTS[part.strip("{}")](self)

    def _typed(self, word: str, *, lowered: bool) -> str:
        if len(word) > LETTERS_TO_SLIP and self._dice.chance(SLIPS):
            place = 1 + self._dice.below(len(word) - 2)
            word = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        return word.lower() if lowered else word

    def _own(self, items: Sequence[str]) -> str:
        """Pick among the items that belong to this split."""
        return self._dice.pick(_owned(self._split, tuple(items)))

    def _invented(self, endings: Sequence[str]) -> str:
        """Invent a word that only this split can have."""
        while True:
            count = 1 + self._dice.below(2)
            stem = "".join(self._dice.pick(text.SYLLABLES) for _ in range(count))
            word = stem + self._dice.pick(endings)
            if _owns(self._split, word):
                return word

    def _short(self) -> str:
        """Invent three capitals that only this split can have."""
        while True:
            word = "".join(self._dice.pick(CAPITALS) for _ in range(3))
            if _owns(self._split, word):
                return word

    def name(self) -> str:
        """Return a bare name: of anything, as far as its letters tell."""
        if self._dice.chance(50):
            return self._own(text.SURNAMES)
        return self._invented(text.ENDINGS).capitalize()

    def person(self) -> Words:
        """Return a person; a title before it is not part of the name."""
        return self._called(self.name())

    def patient(self) -> Words:
        """Return the letter's patient."""
        return self._called(self._patient)

    def _called(self, surname: str) -> Words:
        form = self._dice.below(5)
        if form == 0:
            return _entity("Person", self._dice.pick(text.FIRST_NAMES), surname)
        if form == 1:
            initial = self._dice.pick(text.FIRST_NAMES)[0]
            return _entity("Person", f"{initial}.", surname)
        if form == 2:  # noqa: PLR2004 (two fifths carry a title)
            return [(self._dice.pick(text.TITLES), "O"), *_entity("Person", surname)]
        return _entity("Person", surname)

    def drug(self) -> Words:
        """Return a drug: by its stem, by a brand name, or by a short form."""
        form = self._dice.below(20)
        if form < 8:  # noqa: PLR2004 (parts of twenty)
            return _entity("Drug", self._invented(self._specialty.stems))
        if form < 18:  # noqa: PLR2004
            return _entity("Drug", self.name())
        return _entity("Drug", self._short())

    def disease(self) -> Words:
        """Return a disease; its degree is not part of its name, its kind is."""
        degree = [(self._dice.pick(text.DEGREES), "O")] if self._dice.chance(20) else []
        kind = [self._dice.pick(text.ADJECTIVES)] if self._dice.chance(20) else []
        return [*degree, *_entity("Disease", *kind, *self._condition())]

    def _condition(self) -> list[str]:
        form = self._dice.below(20)
        if form < 10:  # noqa: PLR2004 (parts of twenty)
            return self._compound()
        if form < 13:  # noqa: PLR2004
            return self._own(text.COMMON_DISEASES).split(" ")
        if form < 16:  # noqa: PLR2004
            return [self.name(), self._dice.pick(("disease", "syndrome"))]
        if form < 18:  # noqa: PLR2004
            return [self._invented(("itis", "oma", "osis", "emia", "pathy"))]
        return [self._short()]

    def _compound(self) -> list[str]:
        places, conditions = self._specialty.places, self._specialty.conditions
        pairs = [f"{place} {condition}" for place in places for condition in conditions]
        return self._own(pairs).split(" ")

    def hospital(self) -> Words:
        """Return a hospital: with its kind, as a saint's, or by a bare name."""
        name, form = self.name(), self._dice.below(5)
        if form < 2:  # noqa: PLR2004 (two fifths are bare)
            return _entity("Hospital", name)
        if form == 2:  # noqa: PLR2004
            return _entity("Hospital", "St", name)
        return _entity("Hospital", name, self._dice.pick(text.HOSPITAL_KINDS))

    def date(self) -> str:
        """Return a date that is no entity."""
        return f"{1 + self._dice.below(28)} {self._dice.pick(text.MONTHS)}"

    def dose(self) -> str:
        """Return a dose that is no entity."""
        return f"{5 * (1 + self._dice.below(40))} {self._dice.pick(text.UNITS)}"

    def trap(self) -> str:
        """Return words of a disease in a harmless sense."""
        return self._dice.pick(self._specialty.traps)

    def procedure(self) -> str:
        """Return a procedure, which is no disease."""
        return self._dice.pick(self._specialty.procedures)

    def finding(self) -> str:
        """Return something else that letters speak of."""
        return self._dice.pick(text.FINDINGS)

    def month(self) -> str:
        """Return a month; some are first names as well."""
        return self._dice.pick(text.MONTHS)


@cache
def _owned(split: str, items: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(item for item in items if _owns(split, item))


def _owns(split: str, item: str) -> bool:
    digest = blake3(item.lower().encode()).digest(length=2)
    return int.from_bytes(digest, "big") % 10 in SHARE_OF_SPLIT[split]


def _entity(label: str, *words: str) -> Words:
    return [(word, f"{'I' if place else 'B'}-{label}") for place, word in enumerate(words)]


def _outside(words: Callable[[Writer], str]) -> Callable[[Writer], Words]:
    return lambda writer: [(word, "O") for word in words(writer).split(" ")]


_SLOTS: Mapping[str, Callable[[Writer], Words]] = {
    "person": Writer.person,
    "patient": Writer.patient,
    "drug": Writer.drug,
    "disease": Writer.disease,
    "hospital": Writer.hospital,
    "name": _outside(Writer.name),
    "place": _outside(Writer.name),
    "date": _outside(Writer.date),
    "dose": _outside(Writer.dose),
    "trap": _outside(Writer.trap),
    "procedure": _outside(Writer.procedure),
    "finding": _outside(Writer.finding),
    "month": _outside(Writer.month),
}
