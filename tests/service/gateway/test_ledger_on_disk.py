from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from common.accounting import PrivacyEvent, epsilon
from common.adaptive_clipping import AdaptiveClipping
from common.ids import RunId, WeightsId
from common.randomness import InsecureSeed
from gateway.bookings import ENOUGH_REFUSED
from gateway.charges import (
    ChargedRound,
    ChargeState,
    DataAlreadyCharged,
    DataSetBinding,
    DataSetChanged,
    Equivocation,
    LedgerInUse,
    LedgerModeMismatch,
    LedgerUnreadable,
    RoundCharge,
    RoundNotRepeatable,
    RoundReleased,
    RunNotBegun,
    UpdateNotRepeatable,
)
from gateway.ledger import Ledger, epsilon_of
from tests.unit.gateway.toys import CLINIC, HOW, RUN, terms

PARENT, OTHER = WeightsId("a" * 64), WeightsId("b" * 64)
UPDATE = WeightsId("c" * 64)
EVENT = PrivacyEvent(2.0, 0.5, 2)
UNITS = [bytes([number]) * 32 for number in range(40)]
SEED = InsecureSeed(7, CLINIC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path):
    opened = Ledger.open(f"sqlite:///{path}")
    yield opened
    opened.close()


@pytest.fixture
def data(ledger) -> DataSetBinding:
    return ledger.bind_data_set("letters", UNITS)


@pytest.fixture
def begun(ledger, data) -> Ledger:
    """A ledger with one run begun and nothing charged."""
    ledger.begin_run(terms(data))
    return ledger


def charge(data, number=1, parent=PARENT, **changes) -> RoundCharge:
    return RoundCharge(terms(data, **changes), number, parent, EVENT)


def rows(path) -> list[tuple]:
    with sqlite3.connect(path) as other:
        return other.execute("select run, round, parent, secret, state from charges").fetchall()


def test_a_charge_is_on_the_disk_when_it_returns(begun, data, path):
    charged = begun.charge(charge(data))
    assert rows(path) == [(RUN, 1, PARENT, charged.secret, "charged")]
    assert charged.fresh
    assert len(charged.secret) == 32


def test_a_round_is_charged_once_and_gives_the_same_secret_again(begun, data, path):
    first = begun.charge(charge(data))
    begun.close()
    reopened = Ledger.open(f"sqlite:///{path}")
    again = reopened.charge(charge(data))
    reopened.close()
    assert (again.secret, again.fresh) == (first.secret, False)
    assert len(rows(path)) == 1


def test_every_round_has_a_secret_of_its_own(begun, data):
    assert len({begun.charge(charge(data, number)).secret for number in range(1, 20)}) == 19


def test_a_second_parent_for_a_charged_round_is_refused_and_recorded(begun, data, path):
    begun.charge(charge(data))
    for _ in range(2):
        with pytest.raises(Equivocation, match="two updates under one noise"):
            begun.charge(charge(data, parent=OTHER))
    assert [row[2] for row in rows(path)] == [PARENT]
    with sqlite3.connect(path) as other:
        assert other.execute("select * from refused_parents").fetchall() == [(RUN, 1, OTHER)]


def test_parents_that_are_offered_without_end_are_recorded_until_it_is_beyond_doubt(
    begun, data, path
):
    begun.charge(charge(data))
    for number in range(ENOUGH_REFUSED + 5):
        with pytest.raises(Equivocation):
            begun.charge(charge(data, parent=f"{number:064x}"))
    with sqlite3.connect(path) as other:
        (count,) = other.execute("select count(*) from refused_parents").fetchone()
    assert count == ENOUGH_REFUSED


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"effective": HOW.model_copy(update={"clipping_norm": 0.5})}, "effective"),
        ({"plan": "2" * 64}, "plan"),
        ({"data": DataSetBinding("letters", "0" * 64)}, "data"),
        ({"gateway": "another"}, "gateway"),
    ],
)
def test_a_round_on_other_terms_than_its_runs_is_sat_out(begun, data, path, changes, named):
    other = terms(**({"data": data} | changes))
    with pytest.raises(RoundNotRepeatable, match=f"other values of: {named};"):
        begun.charge(RoundCharge(other, 1, PARENT, EVENT))
    with pytest.raises(RoundNotRepeatable, match=named):
        begun.begin_run(other)
    assert rows(path) == []


def test_a_charged_round_cannot_be_repeated_at_another_cost(begun, data):
    begun.charge(charge(data))
    dearer = RoundCharge(terms(data), 1, PARENT, PrivacyEvent(2.0, 0.5, 200))
    with pytest.raises(RoundNotRepeatable, match="event"):
        begun.charge(dearer)


def test_a_run_that_was_not_begun_cannot_be_charged(ledger, data):
    assert ledger.run(RUN) is None
    with pytest.raises(RunNotBegun, match="review its plan first"):
        ledger.charge(charge(data))


def test_beginning_a_run_again_changes_nothing(begun, data):
    begun.begin_run(terms(data))
    assert begun.run(RUN) == terms(data)


def test_an_update_is_recorded_once(begun, data):
    begun.charge(charge(data))
    begun.record_update(RUN, 1, UPDATE)
    begun.record_update(RUN, 1, UPDATE)
    assert begun.charge(charge(data)).update == UPDATE
    with pytest.raises(UpdateNotRepeatable, match="only one may ever leave"):
        begun.record_update(RUN, 1, WeightsId("d" * 64))


def test_published_rounds_lose_their_secrets_for_good(begun, data, path):
    secrets = [begun.charge(charge(data, number)).secret for number in (1, 2, 3)]
    begun.record_update(RUN, 1, UPDATE)
    assert begun.release(RUN, 2) == (UPDATE,)
    assert begun.release(RUN, 2) == ()
    assert [row[3:] for row in rows(path)] == [
        (None, "released"),
        (None, "released"),
        (secrets[2], "charged"),
    ]
    files = files_beside(path)
    assert [secret in files for secret in secrets] == [False, False, True]
    with pytest.raises(RoundReleased, match="keys are erased"):
        begun.charge(charge(data, 1))
    with pytest.raises(Equivocation):
        begun.charge(charge(data, 1, parent=OTHER))


def test_the_ledger_lists_its_charges_and_what_they_cost(begun, data):
    for number in (1, 2):
        begun.charge(charge(data, number))
    begun.record_update(RUN, 2, UPDATE)
    first, second = begun.charges()
    assert (first.sequence, first.round, first.state, first.update) == (
        1,
        1,
        ChargeState.CHARGED,
        None,
    )
    assert (second.state, second.update, second.terms) == (ChargeState.READY, UPDATE, terms(data))
    assert begun.events("letters") == (EVENT, EVENT)
    assert begun.events("letters", but_for=RUN) == begun.events("others") == ()
    assert epsilon_of(begun, "letters", 1e-5) == epsilon([EVENT.times(2)], 1e-5)


def test_a_released_round_stays_charged(begun, data):
    begun.charge(charge(data))
    begun.release(RUN, 1)
    assert begun.events("letters") == (EVENT,)


def test_a_data_set_is_known_again_by_name_and_content(ledger, data):
    assert ledger.bind_data_set("letters", UNITS) == data
    assert ledger.bind_data_set("empty", []).digest != data.digest


def test_uncharged_data_may_change_their_content_or_name(begun, data):
    changed = begun.bind_data_set("letters", UNITS[:20])
    assert changed.digest != data.digest
    assert begun.bind_data_set("renamed", UNITS).name == "renamed"
    with pytest.raises(RunNotBegun):
        begun.charge(charge(data))


def test_charged_data_may_not_change(begun, data):
    begun.charge(charge(data))
    for others in (UNITS[:-1], UNITS[::-1], [*UNITS, bytes(32)]):
        with pytest.raises(DataSetChanged, match="put the old data back, or give the new ones"):
            begun.bind_data_set("letters", others)


@pytest.mark.parametrize("shared", [4, 5, 40])
def test_charged_data_may_not_take_another_name(begun, data, shared):
    begun.charge(charge(data))
    units = UNITS[:shared] + [bytes([100 + n]) * 32 for n in range(40 - shared)]
    if shared <= 4:  # a tenth
        assert begun.bind_data_set("fresh", units).name == "fresh"
        return
    with pytest.raises(DataAlreadyCharged, match=f"{shared} examples .* charged as 'letters'"):
        begun.bind_data_set("fresh", units)


def numbered(first: int, count: int) -> list[bytes]:
    return [number.to_bytes(32) for number in range(first, first + count)]


def charge_as(ledger, name: str, units: list[bytes]) -> None:
    run = terms(ledger.bind_data_set(name, units), run=RunId(f"run-{name}"))
    ledger.begin_run(run)
    ledger.charge(RoundCharge(run, 1, PARENT, EVENT))


def test_a_small_charged_set_may_not_hide_in_a_large_one(begun, data):
    begun.charge(charge(data))
    with pytest.raises(DataAlreadyCharged, match=r"40 examples .* charged as 'letters'"):
        begun.bind_data_set("large", UNITS + numbered(1000, 960))


def test_a_data_set_may_not_be_gathered_from_a_tenth_of_each_of_many(ledger):
    parts = [numbered(100 * part, 40) for part in range(10)]
    for part, units in enumerate(parts):
        charge_as(ledger, f"part-{part}", units)
    with pytest.raises(DataAlreadyCharged, match=r"40 examples .* 'part-0', 'part-1', .* 'part-9'"):
        ledger.bind_data_set("gathered", [unit for units in parts for unit in units[:4]])


def test_a_data_set_may_not_be_spread_over_many_a_tenth_each(begun, data):
    begun.charge(charge(data))
    charge_as(begun, "first", UNITS[:4] + numbered(1000, 36))
    with pytest.raises(DataAlreadyCharged, match="4 examples of data set 'second'"):
        begun.bind_data_set("second", UNITS[4:8] + numbered(2000, 36))


def test_digests_of_data_are_keyed_by_the_ledger(tmp_path):
    digests = set()
    for name in ("one.db", "two.db"):
        ledger = Ledger.open(f"sqlite:///{tmp_path / name}")
        digests.add(ledger.bind_data_set("letters", UNITS).digest)
        ledger.close()
    assert len(digests) == 2


@pytest.mark.usefixtures("ledger")
def test_a_second_process_is_refused(path):
    attempt = f"from gateway.ledger import Ledger; Ledger.open('sqlite:///{path}')"
    other = subprocess.run([sys.executable, "-c", attempt], capture_output=True, check=False)
    assert b"LedgerInUse" in other.stderr
    with pytest.raises(LedgerInUse, match="is in use by another process"):
        Ledger.open(f"sqlite:///{path}")


def test_a_closed_ledger_can_be_opened_again(ledger, path):
    ledger.close()
    ledger.close()
    Ledger.open(f"sqlite:///{path}").close()


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_lost_ledger_is_not_begun_anew(ledger, path, lose, exclusive):
    ledger.close()
    lose(path)
    before = set(path.parent.iterdir())
    with pytest.raises(LedgerUnreadable, match=r"ledger\.db\.made beside it .* newest backup"):
        Ledger.open(f"sqlite:///{path}", exclusive=exclusive)
    assert set(path.parent.iterdir()) == before


def test_a_ledger_in_memory_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite://", "sqlite:///:memory:"):
        Ledger.open(url).close()
        with pytest.raises(LedgerUnreadable, match="there is no ledger"):
            Ledger.open(url, exclusive=False)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_the_charges_of_a_ledger_in_use_and_writes_none(begun, data, path):
    reader = Ledger.open(f"sqlite:///{path}", exclusive=False)
    begun.charge(charge(data))
    assert reader.charges() == begun.charges() != ()
    with pytest.raises(LedgerUnreadable, match="readonly"):
        reader.charge(charge(data, 2))
    begun.charge(charge(data, 2))
    assert len(reader.charges()) == 2
    reader.close()


def test_a_reader_makes_nothing(ledger, path):
    ledger.close()
    before = set(path.parent.iterdir())
    reader = Ledger.open(f"sqlite:///{path}", exclusive=False)
    assert reader.charges() == ()
    reader.close()
    with pytest.raises(LedgerUnreadable, match=r"there is no ledger at .*other\.db yet"):
        Ledger.open(f"sqlite:///{path.with_name('other.db')}", exclusive=False)
    assert set(path.parent.iterdir()) == before


def test_a_reader_of_a_damaged_or_foreign_ledger_is_refused(ledger, path):
    with pytest.raises(LedgerModeMismatch):
        Ledger.open(f"sqlite:///{path}", seed=SEED, exclusive=False)
    with sqlite3.connect(path) as other:
        other.execute("delete from stamp")
    with pytest.raises(LedgerUnreadable, match="being made"):
        Ledger.open(f"sqlite:///{path}", exclusive=False)
    ledger.close()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerUnreadable, match="not a database"):
        Ledger.open(f"sqlite:///{path}", exclusive=False)


def test_secrets_that_a_reader_kept_in_the_log_are_erased_at_the_next_open(path):
    impatient = f"sqlite:///{path}?timeout=0.01"
    ledger = Ledger.open(impatient)
    data = ledger.bind_data_set("letters", UNITS)
    ledger.begin_run(terms(data))
    secret = ledger.charge(charge(data)).secret
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin")
    other.execute("select * from charges").fetchall()
    ledger.release(RUN, 1)
    ledger.close()
    other.execute("commit")
    assert secret in files_beside(path)
    Ledger.open(impatient).close()
    assert secret not in files_beside(path)
    other.close()


def files_beside(path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_a_damaged_ledger_is_not_used(begun, data, path):
    begun.charge(charge(data))
    begun.close()
    path.write_bytes(b"not a database" * 100)
    for _ in range(2):
        with pytest.raises(LedgerUnreadable, match="nothing is trained until it can"):
            Ledger.open(f"sqlite:///{path}")


def test_a_ledger_with_a_damaged_page_is_not_used(begun, data, path):
    begun.charge(charge(data))
    begun.close()
    whole = bytearray(path.read_bytes())
    for page in range(4096, len(whole), 4096):
        whole[page : page + 64] = b"\xff" * 64
    path.write_bytes(whole)
    with pytest.raises(LedgerUnreadable):
        Ledger.open(f"sqlite:///{path}")


def test_a_ledger_of_a_newer_version_is_not_used(ledger, path):
    ledger.close()
    with sqlite3.connect(path) as other:
        other.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(LedgerUnreadable, match="9999"):
        Ledger.open(f"sqlite:///{path}")


def test_a_missing_folder_is_not_made_up_for(tmp_path):
    with pytest.raises(LedgerUnreadable, match="No such file or directory"):
        Ledger.open(f"sqlite:///{tmp_path / 'unmounted' / 'ledger.db'}")


def test_a_ledger_that_breaks_while_in_use_fails_closed(begun, data, path):
    with sqlite3.connect(path) as other:
        other.execute("drop table charges")
    with pytest.raises(LedgerUnreadable, match="no such table"):
        begun.charge(charge(data))


def test_commits_wait_for_the_disk_and_erase_what_they_delete(ledger, path):
    assert path.stat().st_mode & 0o077 == 0
    with ledger._engine.connect() as connection:  # settings of its own connection
        settings = [
            connection.exec_driver_sql(f"pragma {name}").scalar()
            for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1, 1]


def test_a_seeded_ledger_repeats_itself_and_reports_no_epsilon(tmp_path):
    secrets = set()
    for name in ("one.db", "two.db"):
        ledger = Ledger.open(f"sqlite:///{tmp_path / name}", seed=SEED)
        data = ledger.bind_data_set("letters", UNITS)
        ledger.begin_run(terms(data))
        secrets.add((data.digest, ledger.charge(charge(data)).secret))
        assert ledger.insecure_deterministic
        assert epsilon_of(ledger, "letters", 1e-5) is None
        ledger.close()
    assert len(secrets) == 1


@pytest.mark.parametrize(("made", "opened"), [(SEED, None), (None, SEED)])
def test_seeded_and_private_runs_never_share_a_ledger(path, made, opened):
    Ledger.open(f"sqlite:///{path}", seed=made).close()
    with pytest.raises(LedgerModeMismatch, match="give this run a ledger of its own"):
        Ledger.open(f"sqlite:///{path}", seed=opened)
    Ledger.open(f"sqlite:///{path}", seed=made).close()


ADAPTIVE = HOW.model_copy(
    update={"adaptive_clipping": AdaptiveClipping(smallest=0.1, largest=10.0)}
)


@pytest.mark.parametrize(("how", "differ"), [(HOW, False), (ADAPTIVE, True)])
def test_the_keys_of_a_round_are_bound_to_the_norm_it_begins_with_where_that_adapts(
    data, how, differ
):
    asked = charge(data, effective=how)
    one, other = (
        ChargedRound(asked, bytes(32), clipping_norm, None, fresh=True)
        for clipping_norm in (1.0, math.nextafter(1.0, 2.0))
    )
    assert (one.noise.read(32) != other.noise.read(32)) is differ
    assert (one.sampling.read(32) != other.sampling.read(32)) is differ


def test_the_norm_that_a_round_came_to_is_kept_with_its_update_and_only_once(begun, data):
    assert begun.charge(charge(data, 1)).clipping_norm == HOW.clipping_norm
    begun.record_update(RUN, 1, UPDATE, next_norm=0.7)
    begun.record_update(RUN, 1, UPDATE, next_norm=0.8)
    assert begun.charge(charge(data, 2)).clipping_norm == 0.7
    assert begun.charge(charge(data, 3)).clipping_norm == 0.7
    begun.record_update(RUN, 2, UPDATE, next_norm=0.6)
    assert begun.charge(charge(data, 3)).clipping_norm == 0.7
    begun.release(RUN, 3)
    assert begun.charge(charge(data, 4)).clipping_norm == 0.6
    with pytest.raises(UpdateNotRepeatable):
        begun.record_update(RUN, 2, OTHER, next_norm=0.1)
    assert [booked.clipping_norm for booked in begun.charges()] == [1.0, 0.7, 0.7, 0.6]


def test_keys_differ_over_everything_that_a_round_is_bound_to(data):
    usual = charge(data)
    others = [
        charge(data, number=2),
        charge(data, parent=OTHER),
        *(
            charge(**({"data": data} | changes))
            for changes in (
                {"gateway": "another"},
                {"run": RunId("run-2")},
                {"plan": "2" * 64},
                {"effective": HOW.model_copy(update={"learning_rate": 0.1})},
                {"data": DataSetBinding("letters", "0" * 64)},
            )
        ),
    ]
    assert len({tuple(sorted(one.binding.items())) for one in [usual, *others]}) == 8
