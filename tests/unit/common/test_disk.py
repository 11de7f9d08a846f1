from __future__ import annotations

import pytest

from common.disk import SYSTEM_DISK


@pytest.fixture
def folder(tmp_path):
    """A folder that a store has made."""
    SYSTEM_DISK.make_folder(tmp_path / "state" / "updates")
    return tmp_path / "state" / "updates"


def test_a_file_is_written_and_read_at_any_place(folder):
    with SYSTEM_DISK.create(folder / "a") as file:
        file.write(b"world", 6)
        file.write(memoryview(b"hello "), 0)
        file.sync()
        room = bytearray(8)
        assert file.read_into(room, 6) == 5
        assert room == b"world\0\0\0"
    assert SYSTEM_DISK.read(folder / "a") == b"hello world"
    assert SYSTEM_DISK.size(folder / "a") == 11


def test_extending_keeps_what_is_there_and_creating_does_not(folder):
    for _ in range(2):
        with SYSTEM_DISK.extend(folder / "a") as file:
            file.write(b"ab", file.size())
    assert SYSTEM_DISK.read(folder / "a") == b"abab"
    SYSTEM_DISK.create(folder / "a").close()
    assert SYSTEM_DISK.size(folder / "a") == 0


def test_a_file_outlives_its_name(folder):
    room = bytearray(5)
    with SYSTEM_DISK.create(folder / "a") as file:
        assert file.size() == 0
        file.write(b"bytes", 0)
        SYSTEM_DISK.unlink(folder / "a")
        SYSTEM_DISK.unlink(folder / "a")
        assert file.read_into(room, 0) == 5
    assert room == b"bytes"
    with pytest.raises(FileNotFoundError):
        SYSTEM_DISK.open(folder / "a")


def test_a_name_moves_to_another_file(folder):
    for name in ("a", "b"):
        with SYSTEM_DISK.create(folder / name) as file:
            file.write(name.encode(), 0)
    SYSTEM_DISK.rename(folder / "b", folder / "a")
    SYSTEM_DISK.sync_folder(folder)
    assert SYSTEM_DISK.names(folder) == ["a"]
    assert SYSTEM_DISK.read(folder / "a") == b"b"


def test_files_and_folders_are_their_owners_alone(folder):
    SYSTEM_DISK.create(folder / "a").close()
    for path in (folder, folder / "a"):
        assert path.stat().st_mode & 0o077 == 0
