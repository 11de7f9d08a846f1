"""Whether the site's people have paused this gateway: a file in its folder, so that it stays so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.disk import SYSTEM_DISK
from common.surroundings import writing_to

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from common.disk import Disk

FILE = "paused"
LONGEST = 32  # characters of it that are shown


class Pause:
    """The switch of one gateway's folder; whoever may write there may turn it.

    That the file is there counts, whatever it holds.
    """

    def __init__(self, state: Path, disk: Disk = SYSTEM_DISK) -> None:
        self._file = state / FILE
        self._disk = disk

    @property
    def is_on(self) -> bool:
        """Whether no new round is begun."""
        return self._file.exists()

    @property
    def since(self) -> str:
        """When it was paused, for people to read; empty if that is not known."""
        try:
            return self._disk.read(self._file).decode()[:LONGEST].strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def turn_on(self, now: datetime) -> None:
        """Begin no round from now on, after a restart neither; a repeat changes nothing.

        Raises:
            StateNotWritable: the folder takes no file.
        """
        if self.is_on:
            return
        with writing_to(self._file.parent):
            with self._disk.create(self._file) as file:
                file.write(f"{now:%Y-%m-%d %H:%M} UTC\n".encode(), 0)
                file.sync()
            self._disk.sync_folder(self._file.parent)

    def turn_off(self) -> None:
        """Take part again; a repeat changes nothing; raise StateNotWritable."""
        with writing_to(self._file.parent):
            self._disk.unlink(self._file)
            self._disk.sync_folder(self._file.parent)
