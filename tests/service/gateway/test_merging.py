"""Merging: another image of the ledger, or what an administrator states, is taken in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.accounting import PrivacyEvent, epsilon
from common.countersignature import countersign
from common.ids import RunId, WeightsId
from common.plan import Unit
from common.protocol import LedgerHead
from gateway.charges import (
    DataAlreadyCharged,
    DataSetChanged,
    Equivocation,
    RoundCharge,
    RoundMerged,
    UnitChanged,
)
from gateway.countersignatures import LedgerRolledBack
from gateway.ledger import Ledger, epsilon_of
from gateway.merging import (
    Assumption,
    CostUnknown,
    ForeignImage,
    MergeFallsShort,
    NothingToMerge,
    Statement,
    merge,
)
from gateway.records import Kind
from tests.unit.gateway.toys import CLINIC, RUN, terms

PARENT, OTHER = WeightsId("a" * 64), WeightsId("b" * 64)
EVENT = PrivacyEvent(2.0, 0.5, 2)
DEARER = PrivacyEvent(0.5, 0.5, 9)
UNITS = [bytes([number]) * 32 for number in range(40)]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
SECOND, DELTA = RunId("run-2"), 1e-5
SILENT = Statement("letters")


def charge(
    ledger: Ledger,
    *numbers: int,
    run: RunId = RUN,
    parent: WeightsId = PARENT,
    unit: Unit = Unit.EXAMPLE,
) -> None:
    of_run = terms(ledger.bind_data_set("letters", UNITS), run=run, unit=unit)
    ledger.begin_run(of_run)
    for number in numbers:
        ledger.charge(RoundCharge(of_run, number, parent, EVENT))


class Disk:
    """A ledger and its images, each in a folder of its own; all are closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open_ones: list[Ledger] = []

    def open(self, name: str) -> Ledger:
        place = self.folder / name
        place.mkdir(exist_ok=True)
        self.open_ones.append(Ledger.open(f"sqlite:///{place / 'ledger.db'}"))
        return self.open_ones[-1]

    def image(self, of: str, name: str) -> None:
        """Copy a closed ledger."""
        shutil.copytree(self.folder / of, self.folder / name)

    def close(self) -> None:
        for ledger in self.open_ones:
            ledger.close()


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path)
    yield disk
    disk.close()


@pytest.fixture
def restored(disk) -> tuple[Ledger, Ledger]:
    """An image of two rounds, and the ledger, which went on to five; the fifth is confirmed."""
    newest = disk.open("newest")
    charge(newest, 1, 2)
    newest.close()
    disk.image("newest", "old")
    newest = disk.open("newest")
    charge(newest, 3, 4, 5)
    newest.confirm(CLINIC, countersign(KEY, "clinics", CLINIC, newest.head))
    old = disk.open("old")
    old.confirm(CLINIC, newest.countersigned())
    with pytest.raises(LedgerRolledBack):
        old.check_standing()
    return old, newest


@pytest.fixture
def forked(disk) -> tuple[Ledger, Ledger]:
    """Two copies of one ledger, each of which went on by itself; one is confirmed."""
    first = disk.open("first")
    charge(first, 1, 2)
    first.close()
    disk.image("first", "second")
    first, second = disk.open("first"), disk.open("second")
    charge(first, 3, 4, 5)
    charge(second, 3)
    charge(second, 1, run=SECOND)
    first.confirm(CLINIC, countersign(KEY, "clinics", CLINIC, first.head))
    second.confirm(CLINIC, first.countersigned())
    return second, first


def goes_on(ledger: Ledger) -> bool:
    ledger.check_standing()
    charge(ledger, 1, run=RunId("next"))
    return True


def test_an_old_image_goes_on_once_the_newest_one_is_merged(restored):
    old, newest = restored
    merged = merge(old, CLINIC, newest, SILENT)
    assert (merged.taken, merged.head.sequence) == (3, 6)
    assert goes_on(old)
    assert old.events("letters") == (EVENT,) * 6
    assert [r.sequence for r in old.records() if r.kind == Kind.MERGE] == [6]


def test_two_branches_cost_what_both_have_charged(forked):
    ledger, other = forked
    with pytest.raises(LedgerRolledBack):
        ledger.check_standing()
    merge(ledger, CLINIC, other, SILENT)
    assert ledger.head.sequence == 6
    # 1 and 2 are common; 3 was released on either branch, under a secret of its own
    union = (EVENT,) * (2 + 2 + 3)
    assert epsilon_of(ledger, "letters", DELTA) == epsilon(union, DELTA)
    assert goes_on(ledger)


def test_a_merge_the_other_way_round_costs_the_same(forked):
    second, first = forked
    merge(first, CLINIC, second, SILENT)
    assert first.events("letters") == (EVENT,) * 7
    assert first.head.sequence == 6


def test_images_that_were_charged_under_different_units_are_charged_no_further(disk):
    disk.open("first").close()
    disk.image("first", "second")
    first, second = disk.open("first"), disk.open("second")
    charge(first, 1)
    charge(second, 1, run=SECOND, unit=Unit.DOCUMENT)
    merge(first, CLINIC, second, SILENT)
    assert first.units_charged("letters") == {Unit.EXAMPLE, Unit.DOCUMENT}
    for number, unit in enumerate(Unit):
        with pytest.raises(UnitChanged, match="says nothing of the other"):
            charge(first, 1, run=RunId(f"next-{number}"), unit=unit)


def test_what_is_stated_is_of_the_unit_that_the_data_are_charged_under(disk):
    ledger = disk.open("only")
    charge(ledger, 1, unit=Unit.DOCUMENT)
    stated = Statement("letters", (Assumption(SECOND, 1), Assumption(RUN, 1)), EVENT)
    assert [each.unit for each in merge(ledger, CLINIC, None, stated).assumed] == [
        Unit.DOCUMENT
    ] * 2
    charge(ledger, 3, unit=Unit.DOCUMENT)


def test_a_merge_can_be_merged_and_lowers_nothing(forked):
    second, first = forked
    merge(second, CLINIC, first, SILENT)
    merge(first, CLINIC, second, SILENT)
    assert first.events("letters") == (EVENT,) * 7
    with pytest.raises(NothingToMerge):
        merge(first, CLINIC, second, SILENT)


def test_a_round_that_came_with_a_merge_is_never_trained(restored):
    old, newest = restored
    merge(old, CLINIC, newest, SILENT)
    for parent in (PARENT, OTHER):
        with pytest.raises(RoundMerged, match=r"round 4 .* cannot be trained again"):
            charge(old, 4, parent=parent)
    charge(old, 2)
    with pytest.raises(Equivocation):
        charge(old, 2, parent=OTHER)


def test_a_plan_does_not_stand_for_what_came_with_a_merge(restored):
    old, newest = restored
    merge(old, CLINIC, newest, SILENT)
    assert old.events("letters", but_for=RUN) == (EVENT,) * 3


def test_data_and_runs_that_only_the_image_knew_stay_known(disk):
    newest = disk.open("newest")
    newest.close()
    disk.image("newest", "old")
    newest, old = disk.open("newest"), disk.open("old")
    charge(newest, 1)
    merge(old, CLINIC, newest, SILENT)
    assert old.run(RUN) == newest.run(RUN)
    with pytest.raises(DataAlreadyCharged, match="charged as 'letters'"):
        old.bind_data_set("renamed", UNITS)
    with pytest.raises(DataSetChanged):
        old.bind_data_set("letters", UNITS[:20])
    assert old.bind_data_set("letters", UNITS) == newest.run(RUN).data


def test_the_record_of_a_merge_names_both_heads_and_the_countersigned_one(forked):
    ledger, other = forked
    ours, theirs = ledger.head, other.head
    merge(ledger, CLINIC, other, SILENT)
    said = ledger.records()[-1].content
    assert said["ours"] == {"sequence": ours.sequence, "hash": ours.hash}
    assert said["theirs"] == said["orchestrator"] == {"sequence": 5, "hash": theirs.hash}


def test_a_merged_ledger_is_whole_when_it_is_opened_again(forked, disk):
    ledger, other = forked
    merge(ledger, CLINIC, other, SILENT)
    head = ledger.head
    ledger.close()
    again = disk.open("second")
    assert again.head == head
    assert again.events("letters") == (EVENT,) * 7


def test_without_an_image_what_is_missing_is_stated_and_counted(restored):
    old, _ = restored
    statement = Statement("letters", (Assumption(RUN, 4),))  # one more than there were
    merged = merge(old, CLINIC, None, statement)
    assert [(each.round, each.event) for each in merged.assumed] == [
        (number, EVENT) for number in (3, 4, 5, 6)
    ]
    assert old.events("letters") == (EVENT,) * 6
    assert merged.head.sequence == 6, "past the countersigned head"
    with pytest.raises(RoundMerged):
        charge(old, 3)
    assert goes_on(old)


def test_an_image_found_later_does_not_count_twice_what_was_stated(restored):
    old, newest = restored
    merge(old, CLINIC, None, Statement("letters", (Assumption(RUN, 4),)))
    merge(old, CLINIC, newest, SILENT)
    assert old.events("letters") == (EVENT,) * 6


def test_what_another_branch_has_charged_since_is_not_what_was_stated(restored):
    old, newest = restored
    merge(old, CLINIC, None, Statement("letters", (Assumption(RUN, 4),)))
    charge(newest, 6)  # not under the head that the statement answered for
    merge(old, CLINIC, newest, SILENT)
    assert old.events("letters") == (EVENT,) * 7


def test_rounds_of_a_run_that_is_lost_too_are_stated_with_their_cost(restored):
    old, _ = restored
    stated = (Assumption(SECOND, 2),)
    before = old.head
    with pytest.raises(CostUnknown, match="what one round of it has cost with --noise-multiplier"):
        merge(old, CLINIC, None, Statement("letters", stated))
    assert old.head == before
    merge(old, CLINIC, None, Statement("letters", stated, each_round=DEARER))
    assert old.events("letters") == (EVENT, EVENT, DEARER, DEARER)
    assert goes_on(old)


def test_terms_on_which_nothing_was_charged_do_not_price_what_is_lost(restored):
    old, _ = restored
    charge_nothing = terms(old.bind_data_set("letters", UNITS), run=SECOND)
    old.begin_run(charge_nothing)
    with pytest.raises(CostUnknown):
        merge(old, CLINIC, None, Statement("letters", (Assumption(SECOND, 2),)))


def test_that_nothing_is_missing_is_a_statement_too_and_on_record(restored):
    old, _ = restored
    merge(old, CLINIC, None, Statement("letters", nothing_is_missing=True))
    assert old.records()[-1].content["orchestrator"]["sequence"] == 5
    assert old.events("letters") == (EVENT, EVENT)
    assert goes_on(old)


def test_an_image_that_lacks_the_countersigned_record_falls_short(restored, disk):
    old, newest = restored
    old.close()
    newest.close()
    disk.image("old", "older")
    older, image = disk.open("older"), disk.open("old")
    beyond = LedgerHead(9, "c" * 64)
    older.confirm(CLINIC, countersign(KEY, "clinics", CLINIC, beyond))
    before = older.head
    for other in (None, image, disk.open("newest")):
        with pytest.raises(MergeFallsShort, match=r"record 9 .* --assume-rounds RUN:N"):
            merge(older, CLINIC, other, SILENT)
    assert older.head == before


def test_what_an_image_knows_to_be_countersigned_is_known_afterwards(restored, disk):
    old, newest = restored
    old.close()
    disk.image("old", "asleep")
    asleep = disk.open("asleep")
    with asleep.transaction() as connection:
        connection.exec_driver_sql("delete from orchestrator")
    merge(asleep, CLINIC, newest, SILENT)
    assert asleep.countersigned() == newest.countersigned()


def test_another_gateways_ledger_is_not_merged(restored, disk):
    old, _ = restored
    foreign = disk.open("foreign")
    charge(foreign, 1)
    with pytest.raises(ForeignImage):
        merge(old, CLINIC, foreign, SILENT)


def test_nothing_to_merge_is_said_and_writes_nothing(disk):
    ledger = disk.open("only")
    charge(ledger, 1)
    ledger.confirm(CLINIC, countersign(KEY, "clinics", CLINIC, ledger.head))
    for statement in (SILENT, Statement("letters", nothing_is_missing=True)):
        with pytest.raises(NothingToMerge):
            merge(ledger, CLINIC, None, statement)
    assert ledger.head.sequence == 1
