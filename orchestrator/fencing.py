"""Of the processes over one database, only the one that took over last may write.

Whoever takes over raises the epoch; every write looks at it first, in its own transaction, and
holds its row until the end: a process that was frozen, cut off or believed dead changes nothing.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from common.errors import UnavailableError
from orchestrator.database import EPOCHS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Engine

log = structlog.get_logger()


class Superseded(UnavailableError):
    """Another orchestrator took over the journal; this process must stop acting."""

    def __init__(self, *, mine: int, current: int) -> None:
        super().__init__(
            f"another orchestrator took over (writer {current}, this one is {mine}): "
            "connect again to reach it"
        )


class JournalFailed(UnavailableError):
    """The database did not do what was asked; or it did, and could not say so any more."""

    def __init__(self) -> None:
        super().__init__("the orchestrator's journal failed, its log says why: try again later")


class Fence:
    """Lets this process write until another one takes over; may be used in any thread."""

    def __init__(self, engine: Engine) -> None:
        """Take over: what an older process writes from now on is refused."""
        self._engine = engine
        self.timing: Callable[[], AbstractContextManager[object]] = nullcontext  # of each write
        with self.reading() as connection:
            connection.execute(update(EPOCHS).values(epoch=EPOCHS.c.epoch + 1))
            self.epoch: int = connection.execute(select(EPOCHS.c.epoch)).scalar_one()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend a transaction in which this process is the one that may write.

        Raises:
            Superseded: another orchestrator took over.
            JournalFailed: the database failed, perhaps while it committed.
        """
        held = select(EPOCHS.c.epoch).with_for_update()  # SQLite locks the whole file
        with self.timing(), self.reading() as connection:
            current: int = connection.execute(held).scalar_one()
            if current != self.epoch:
                raise Superseded(mine=self.epoch, current=current)
            yield connection

    def check(self) -> None:
        """Raise Superseded if another orchestrator took over, JournalFailed if that is unknown."""
        with self.writing():
            pass

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a transaction; raise JournalFailed where the database fails."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            log.warning("journal_failed", why=str(error.orig))  # names hosts: it stays here
            raise JournalFailed from error
