"""The generated corpus `letters`: clinical letters of hospitals that never existed.

Three hospitals have a specialty and a way of writing of their own, three smaller ones
mix them. A name that looks like a person may be a ward, a score, a firm, a hospital, a
drug or a disease: what stands around it decides. Names, drugs and diseases of the dev
and test letters do not occur in the training letters, and those letters mix all three
specialties; a hospital alone has seen a third of what it is measured on.

Each letter is a document, each patient a person; every third patient has two letters.

Chance is a hash of the seed and a counter, so the corpus is the same on every machine.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.ner import letters_text as text
from tasks.ner.letters_writer import Dice, Hospital, Writer
from tasks.ner.sentences import Sentence, Split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LABELS = ("Disease", "Drug", "Hospital", "Person")
SEED = 7  # of the corpus; any other gives letters that no site has
SIZES: Mapping[Split, int] = {"dev": 300, "test": 600}  # sentences of all sites together


HOSPITALS = (
    Hospital("harbour-infirmary", (text.CARDIOLOGY,), (text.FORMAL,), 1600),
    Hospital("hillside-centre", (text.ONCOLOGY,), (text.TELEGRAPHIC,), 1300),
    Hospital("lakeland-clinic", (text.NEUROLOGY,), (text.NARRATIVE,), 1000),
    Hospital(
        "midtown-general",
        (text.CARDIOLOGY, text.ONCOLOGY),
        (text.FORMAL, text.TELEGRAPHIC),
        500,
    ),
    Hospital(
        "northgate-royal",
        (text.ONCOLOGY, text.NEUROLOGY),
        (text.TELEGRAPHIC, text.NARRATIVE),
        400,
    ),
    Hospital(
        "old-bridge-memorial",
        (text.NEUROLOGY, text.CARDIOLOGY),
        (text.NARRATIVE, text.FORMAL),
        300,
    ),
)
MEASURED = HOSPITALS[:3]  # dev and test letters are written in their three ways
SPECIALTIES = (text.CARDIOLOGY, text.ONCOLOGY, text.NEUROLOGY)


def letters(seed: int = SEED) -> tuple[Sentence, ...]:
    """Return the whole corpus: the training letters of each site, then dev, then test."""
    train = [s for site in HOSPITALS for s in _written_by(site, "train", site.sentences, seed)]
    measured = [
        sentence
        for split, size in SIZES.items()
        for site in MEASURED
        for sentence in _written_by(
            replace(site, specialties=SPECIALTIES), split, size // len(MEASURED), seed
        )
    ]
    return (*train, *measured)


def _written_by(site: Hospital, split: Split, sentences: int, seed: int) -> Iterator[Sentence]:
    written, letter = 0, 0
    while written < sentences:
        letter += 1
        length = min(3 + written % 5, sentences - written)
        yield from _letter(site, split, letter, length, seed)
        written += length


def _letter(
    site: Hospital, split: Split, number: int, length: int, seed: int
) -> Iterator[Sentence]:
    """Yield the sentences of one letter; every third patient gets two letters."""
    dice = Dice(f"{seed} {site.name} {split} {number}")
    writer = Writer(site, split, dice)
    patient = f"{site.name}-{split}-patient-{number - (number % 3 == 0)}"
    for _ in range(length):
        words, tags = zip(*writer.sentence(), strict=True)
        key = f"{site.name}-{split}-letter-{number}"
        yield Sentence(words, tags, site.name, split, key, (patient,))
