"""Engines on SQLite and PostgreSQL: how a connection is set up, and what is said if there is none.

A password is never part of what is said.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from common.errors import RequestError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import URL, Engine

    from orchestrator.config import OrchestratorConfig

POSTGRESQL = "postgresql+psycopg"
IDLE_IN_TRANSACTION_S = 10  # a frozen process holds the writer's row no longer
# of libpq; what the URL says wins. A server that cannot be reached is given up within seconds.
_CONNECTION: Mapping[str, object] = {
    "application_name": "fedgate",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
}


class DatabaseUrlInvalid(RequestError):
    """The setting names no database that can be used."""

    field = "database"

    def __init__(self) -> None:
        super().__init__(
            "`database` must be empty (SQLite in the state folder), sqlite:////a/file.db or "
            f"{POSTGRESQL}://USER:PASSWORD@HOST:5432/NAME, special characters percent-encoded"
        )


class PasswordUnreadable(RequestError):
    """The file that should hold the database's password holds none."""

    field = "database_password_file"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"no password for the database can be read from {path} ({why}): put it there, one "
            "line that the orchestrator's user can read, or correct `database_password_file`"
        )


class PasswordMisplaced(RequestError):
    """A file holds a password for which `database` has no place."""

    field = "database_password_file"

    def __init__(self) -> None:
        super().__init__(
            "`database_password_file` is set, and `database` names no PostgreSQL server or has a "
            f"password already: write {POSTGRESQL}://USER@HOST:5432/NAME, or unset the file"
        )


class DriverMissing(RequestError):
    """The package that talks to PostgreSQL is not installed."""

    field = "database"

    def __init__(self, error: ImportError) -> None:
        super().__init__(
            f"PostgreSQL needs a package that is not here ({str(error).splitlines()[0]}): "
            "pip install 'fedgate[postgresql]'"
        )


class DatabaseRefused(RequestError):
    """The database's server answers, and lets this user not in."""

    field = "database"

    def __init__(self, url: URL, why: str) -> None:
        super().__init__(
            f"{_shown(url)} lets this orchestrator not in ({why}): correct the user, the password "
            "or the name in `database` (FEDGATE__DATABASE in the environment, or ~/.pgpass)"
        )


class DatabaseUnreachable(UnavailableError):
    """The database cannot be opened."""

    def __init__(self, url: URL, why: str) -> None:
        super().__init__(
            f"cannot open {_shown(url)} ({why}): start it, or correct `database`, then start again"
        )


def url_of(config: OrchestratorConfig) -> str:
    """Return where the journal is kept, the password of `database_password_file` put in.

    Raises:
        DatabaseUrlInvalid: `database` is no URL that can be used.
        PasswordUnreadable, PasswordMisplaced: the file gives no password, or none is wanted.
    """
    url, file = config.database or f"sqlite:///{config.journal_file}", config.database_password_file
    if file is None:
        return url
    parsed = _parsed(url)
    if parsed.get_backend_name() != "postgresql" or parsed.password is not None:
        raise PasswordMisplaced
    return parsed.set(password=_password_in(file)).render_as_string(hide_password=False)


def engine_on(url: str, **options: Any) -> Engine:
    """Return an engine on `url` each commit of which is durable once it has returned.

    It connects with its first use.

    Raises:
        DatabaseUrlInvalid, DriverMissing: nothing can be opened with this URL.
    """
    parsed = _parsed(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            engine = create_engine(parsed, **options)
            event.listen(engine, "connect", _make_durable)
            event.listen(engine, "begin", _begin_writing)
            return engine
        asked = {key: value for key, value in _CONNECTION.items() if key not in parsed.query}
        engine = create_engine(parsed, connect_args=asked, **options)
    except ImportError as error:
        raise DriverMissing(error) from error
    settings = {
        "synchronous_commit": "on",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
        "lock_timeout": f"{2 * IDLE_IN_TRANSACTION_S}s",
    }
    set_at_connection(engine, settings)
    return engine


def set_at_connection(engine: Engine, settings: Mapping[str, str]) -> None:
    """Give every later session of a PostgreSQL engine these settings."""
    statements = ";".join(f"SET {name} = '{value}'" for name, value in settings.items())

    def apply(connection: Any, _record: Any) -> None:
        before, connection.autocommit = connection.autocommit, True
        connection.execute(statements)
        connection.autocommit = before

    event.listen(engine, "connect", apply)


@contextmanager
def opening(url: str) -> Iterator[None]:
    """Turn what keeps a database from being opened into an error that says what to do.

    Raises:
        DatabaseRefused: its server answers, and does not let this user in.
        DatabaseUnreachable: anything else.
    """
    try:
        yield
    except DBAPIError as error:
        parsed = _parsed(url)
        why = _without_password(" ".join(str(error.orig).split()), parsed)
        attempt = getattr(error.orig, "pgconn", None)  # psycopg's, of a connection that failed
        if attempt is not None and (attempt.needs_password or attempt.used_password):
            raise DatabaseRefused(parsed, why) from None
        raise DatabaseUnreachable(parsed, why) from None


def is_postgresql(url: str) -> bool:
    """Whether `url` names a database in PostgreSQL; raise DatabaseUrlInvalid."""
    return _parsed(url).get_backend_name() == "postgresql"


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise DatabaseUrlInvalid from None  # its text may hold the password
    if parsed.drivername == "postgresql":
        return parsed.set(drivername=POSTGRESQL)
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", POSTGRESQL}:
        raise DatabaseUrlInvalid
    return parsed


def _password_in(file: Path) -> str:
    try:
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise PasswordUnreadable(file, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise PasswordUnreadable(file, "it is not UTF-8") from error
    if not password or not password.isprintable():
        raise PasswordUnreadable(file, "it is not one line of text")
    return password


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


def _without_password(text: str, url: URL) -> str:
    return text.replace(str(url.password), "***") if url.password else text


def _make_durable(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin in `_begin_writing`, not in the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_writing(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
