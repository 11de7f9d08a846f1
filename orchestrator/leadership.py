"""Which of several orchestrators leads: over PostgreSQL, the one whose session holds its lock.

The lock is what a standby waits for. That no two processes write is not its doing but the fence's:
a leader whose session has ended goes on until another one has raised the epoch, and no further.
The server ends the session of a leader that is silent for LEASE_S, so that one which is frozen or
cut off gives way as one that died does.
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from sqlalchemy import NullPool, func, select
from sqlalchemy.exc import DBAPIError

from common.errors import ConflictError, RequestError
from orchestrator.database import EPOCHS
from orchestrator.engines import engine_on, is_postgresql, opening, set_at_connection
from orchestrator.fencing import Superseded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import TypeVar

    from sqlalchemy import Connection, Select

    from common.clock import Clock

    ResultT = TypeVar("ResultT")

LEASE_S = 12  # of silence after which the server ends the leader's session
PING_S = 2.0
POLL_S = 1.0
PATIENCE_S = 1.5 * LEASE_S  # for the session of a leader that has just died
_KEY = int.from_bytes(b"fedgate", "big")  # of the lock: one federation in a database

log = structlog.get_logger()


class StandbyNeedsPostgresql(RequestError):
    """A standby was asked for over a database that knows no sessions."""

    field = "database"

    def __init__(self) -> None:
        super().__init__(
            "a standby needs PostgreSQL: SQLite is a file of one machine, in which nothing tells "
            "that its orchestrator has died; set `database`, or start without --standby"
        )


class AnotherLeads(ConflictError):
    """Another orchestrator holds the database's lock, and does not give it up."""

    def __init__(self) -> None:
        super().__init__(
            "another orchestrator leads over this database: stop it first, or start this one "
            "with --standby to take over when it ends"
        )


@asynccontextmanager
async def leading(url: str, clock: Clock, *, standby: bool) -> AsyncIterator[Leadership | None]:
    """Lead inside the block; a standby waits until it can. Over SQLite whoever starts last leads.

    Raises:
        StandbyNeedsPostgresql: SQLite has no standby.
        AnotherLeads: there is a leader, and this is no standby.
        DatabaseUrlInvalid, DriverMissing, DatabaseRefused, DatabaseUnreachable: it does not open.
    """
    if not is_postgresql(url):
        if standby:
            raise StandbyNeedsPostgresql
        yield None
        return
    leadership = Leadership(url, clock)
    try:
        await leadership.take(math.inf if standby else PATIENCE_S)
        yield leadership
    finally:
        leadership.close()


class Leadership:
    """The lock of a PostgreSQL database, held or waited for in a thread of its own."""

    def __init__(self, url: str, clock: Clock) -> None:
        """Prepare to take the lock; nothing connects yet."""
        self._url = url
        self._clock = clock
        self._lock = AdvisoryLock(url)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lead")

    async def take(self, patience_s: float) -> None:
        """Return once this process leads; only the first try says why there is no database.

        Raises:
            AnotherLeads: another one has led for `patience_s`.
            DatabaseRefused, DatabaseUnreachable: the first try failed.
        """
        until = self._clock.now() + patience_s
        with opening(self._url):
            is_taken = await self._in_thread(self._lock.try_hold)
        if not is_taken:
            log.info("standing_by")
        while not is_taken:
            if self._clock.now() >= until:
                raise AnotherLeads
            await self._clock.sleep_until(self._clock.now() + POLL_S)
            try:
                is_taken = await self._in_thread(self._lock.try_hold)
            except DBAPIError as error:
                log.warning("standby_without_database", why=str(error.orig))
        log.info("leading")

    async def keep(self, epoch: int) -> NoReturn:
        """Hold the lock, and take it again after its session has ended.

        Args:
            epoch: of this process's writes.

        Raises:
            Superseded: another one leads now.
        """
        while True:
            await self._clock.sleep_until(self._clock.now() + PING_S)
            try:
                is_held = await self._in_thread(self._lock.try_hold)
                current = await self._in_thread(self._lock.epoch)
            except DBAPIError as error:
                log.warning("leadership_in_doubt", why=str(error.orig))
                continue
            if current != epoch:
                raise Superseded(mine=epoch, current=current)
            if not is_held:
                log.warning("leadership_lost")  # whoever has it is about to raise the epoch

    def close(self) -> None:
        """Give the lock up."""
        self._thread.submit(self._lock.close)
        self._thread.shutdown()

    def _in_thread(self, work: Callable[[], ResultT]) -> asyncio.Future[ResultT]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)


class AdvisoryLock:
    """A lock that PostgreSQL holds for one session, until that ends."""

    def __init__(self, url: str) -> None:
        """Prepare a session of its own; nothing connects yet."""
        self._engine = engine_on(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        set_at_connection(self._engine, {"idle_session_timeout": f"{LEASE_S}s"})
        self._connection: Connection | None = None

    def try_hold(self) -> bool:
        """Return whether this process holds the lock now; raise DBAPIError."""
        is_held: bool = self._answer(select(func.pg_try_advisory_lock(_KEY)))
        return is_held

    def epoch(self) -> int:
        """Return whose turn it is to write; raise DBAPIError."""
        epoch: int = self._answer(select(EPOCHS.c.epoch))
        return epoch

    def close(self) -> None:
        """End the session."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answer(self, question: Select[Any]) -> Any:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            return self._connection.execute(question).scalar_one()
        except DBAPIError:
            self.close()
            raise
