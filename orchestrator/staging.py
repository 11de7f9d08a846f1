"""Updates on their way in: one named file each, so that a torn transfer is resumed by offset.

A file that nobody reads any more serves the next update: to write over the pages of a file costs a
fourth of what it costs to get new ones. Nothing is fsynced: a gateway keeps its bytes until the
round is published, and what a crash of the machine tore has another digest than its name.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING

from common.disk import SYSTEM_DISK
from common.errors import AbortedError
from common.transfer import BodyTooLong
from orchestrator.uploads import OpenFile, Upload, held, hold
from orchestrator.weight_store import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from common.disk import Disk
    from common.ids import GatewayId, RunId
    from common.protocol import Body
    from common.update_form import UpdateForm

SPARE, PART = "spare_", ".part"


class UploadInProgress(AbortedError):
    """The same gateway is sending an update for the same round already.

    Perhaps it is a call that broke off, of which this side has not heard yet: that ends soon.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__(
            f"an upload for round {slot.round} of run {slot.run_id!r} is going on: "
            "wait until it ends, then ask GetUpload where to go on"
        )


class UploadMoved(AbortedError):
    """A transfer would not go on where the one before it ended; that has ended since."""

    def __init__(self, *, got: int, held: int) -> None:
        super().__init__(
            f"the transfer would begin at byte {got}, {held} bytes have arrived: "
            "ask GetUpload where to go on"
        )


@dataclass(frozen=True)
class Slot:
    """Which update: a gateway stages one at a time for a round of a run."""

    run_id: RunId
    round: int
    gateway: GatewayId

    @property
    def prefix(self) -> str:
        """How the names of its files begin; no name in it holds an underscore."""
        return f"{self.run_id}_{self.round}_{self.gateway}_"


class Staging:
    """The files of updates that have not been counted yet."""

    def __init__(self, folder: Path, disk: Disk = SYSTEM_DISK) -> None:
        """Keep the files in `folder` of `disk`."""
        disk.make_folder(folder)
        self._disk = disk
        self._folder = folder
        self._busy: set[Slot] = set()
        self._spare: OpenFile | None = None
        self._files = RLock()  # over names and the spare: uploads open theirs in threads

    def held(self, slot: Slot, digest: str) -> int:
        """Return how many bytes of that update have arrived."""
        try:
            with self._disk.open(self._path(slot, digest)) as file:
                return held(file)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StorageFailed(error) from error

    @contextmanager
    def receiving(
        self, slot: Slot, body: Body, form: UpdateForm, *, limit: int
    ) -> Iterator[Upload]:
        """Lend the file of an update; what another digest left in the slot is deleted.

        What it holds at the end is kept for a transfer that goes on, unless it was let go.

        Raises:
            BodyTooLong: the header declares more than `limit` bytes.
            UploadInProgress: the slot is taken.
            UploadMoved: the transfer does not go on where the file ends.
            StorageFailed: the disk does not give a file.
        """
        if body.byte_length > limit:
            raise BodyTooLong(got=body.byte_length, limit=limit)
        if slot in self._busy:
            raise UploadInProgress(slot)
        if body.offset != (there := self.held(slot, body.digest)):
            raise UploadMoved(got=body.offset, held=there)
        self._busy.add(slot)
        try:
            upload = Upload(partial(self._opened, slot, body.digest), body, form)
            try:
                yield upload
            finally:
                upload.close()
        finally:
            self._busy.discard(slot)

    def let_go(self, upload: Upload) -> None:
        """Forget an update that nobody reads any more; its file serves the next one."""
        with self._files:
            opened = upload.give_up()
            if self._spare is None and self._spares(opened):
                return
            opened.file.close()
            with suppress(OSError):
                self._disk.unlink(opened.path)  # or a sweep does

    def _spares(self, opened: OpenFile) -> bool:
        spare = self._folder / f"{SPARE}{PART}"
        try:
            self._disk.rename(opened.path, spare)
        except OSError:
            return False
        opened.path, self._spare = spare, opened
        return True

    def sweep(self, live: Collection[Slot]) -> None:
        """Delete every file that belongs to none of the `live` slots."""
        prefixes = tuple(slot.prefix for slot in live) + tuple(s.prefix for s in self._busy)
        with self._files:
            if self._spare is not None and not prefixes:
                self._spare.file.close()
                self._spare = None
            kept = prefixes if self._spare is None else (*prefixes, SPARE)
            for name in self._disk.names(self._folder):
                if name.endswith(PART) and not name.startswith(kept):
                    self._disk.unlink(self._folder / name)

    def _opened(self, slot: Slot, digest: str) -> OpenFile:
        path = self._path(slot, digest)
        try:
            with self._files:
                names = self._disk.names(self._folder)
                for name in names:
                    if name.startswith(slot.prefix) and name != path.name:
                        self._disk.unlink(self._folder / name)
                spare = None if path.name in names else self._spare
                if spare is None:
                    return OpenFile(path, self._disk.extend(path))
                self._spare = None
                return self._used_again(spare, path)
        except OSError as error:
            raise StorageFailed(error) from error

    def _used_again(self, spare: OpenFile, path: Path) -> OpenFile:
        """Give the spare file another name; of what it held nothing counts."""
        hold(spare.file, 0)
        self._disk.rename(spare.path, path)
        spare.path = path
        return spare

    def _path(self, slot: Slot, digest: str) -> Path:
        return self._folder / f"{slot.prefix}{digest}{PART}"
