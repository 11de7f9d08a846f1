from __future__ import annotations

import pytest

from common.weights import Weights
from gateway.updates import UpdateLost, UpdateStore
from tests.unit.gateway.toys import values


@pytest.fixture
def store(tmp_path) -> UpdateStore:
    return UpdateStore(tmp_path / "updates")


def test_kept_bytes_come_back(store):
    assert store.read(store.keep(b"update")) == b"update"


def test_the_name_is_the_digest_of_the_weights(store):
    update = Weights.from_arrays({"w": values(4).numpy()})
    assert store.keep(update.to_bytes()) == update.digest


def test_keeping_twice_changes_nothing(store):
    assert store.keep(b"update") == store.keep(b"update")


def test_a_restart_finds_what_was_kept_and_drops_what_was_cut_short(store, tmp_path):
    digest = store.keep(b"update")
    (tmp_path / "updates" / f"{digest}.part").write_bytes(b"upd")
    assert UpdateStore(tmp_path / "updates").read(digest) == b"update"
    assert [path.name for path in (tmp_path / "updates").iterdir()] == [digest]


def test_a_damaged_update_is_never_given_out(store, tmp_path):
    digest = store.keep(b"update")
    (tmp_path / "updates" / digest).write_bytes(b"updete")
    with pytest.raises(UpdateLost, match="missing or damaged"):
        store.read(digest)


def test_a_discarded_update_is_gone(store):
    digest = store.keep(b"update")
    store.discard(digest)
    store.discard(digest)
    with pytest.raises(UpdateLost):
        store.read(digest)


def test_of_discarded_updates_nothing_stays_in_memory(store):
    for number in range(3):
        store.discard(store.keep(bytes([number])))
    assert not store._kept_now


def test_of_earlier_processes_only_named_updates_survive(store, tmp_path):
    first, _ = store.keep(b"first"), store.keep(b"second")
    (tmp_path / "updates" / "notes.txt").write_text("the operator's own")
    later = UpdateStore(tmp_path / "updates")
    third = later.keep(b"third")
    later.keep_only({first})
    names = {path.name for path in (tmp_path / "updates").iterdir()}
    assert names == {first, third, "notes.txt"}


def test_updates_are_for_their_owner_only(store, tmp_path):
    digest = store.keep(b"update")
    assert (tmp_path / "updates" / digest).stat().st_mode & 0o077 == 0
    assert (tmp_path / "updates").stat().st_mode & 0o077 == 0
