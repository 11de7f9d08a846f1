"""An engine of SQLAlchemy's that does without pools, events of statements and cursor results.

A simulation spends most of its time in them, and looks for mistakes elsewhere. Statements are
compiled, values converted, transactions begun and errors told apart by SQLAlchemy as ever; a test
holds that a seed comes to the same on both engines.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.compiler import SQLCompiler

from tests.simulation.database import SimulatedConnection

PREPARED: dict[Any, Prepared | None] = {}  # by what SQLAlchemy's own cache goes by; None: its task


@cache
def sound_engine(hide_parameters: bool) -> Engine:
    """Return the engine of SQLAlchemy's whose dialect and statements all others share."""
    engine = create_engine("sqlite://", hide_parameters=hide_parameters)
    engine.connect().close()  # the dialect asks once what the database can do
    return engine


def create_engine_quickly(url, *, hide_parameters: bool = False) -> Engine:
    """Return what `create_engine` does for a file of SQLite; statements are compiled once."""
    sound, url = sound_engine(hide_parameters), make_url(url)
    connect = partial(SimulatedConnection, url.database, check_same_thread=False)
    pool = QueuePool(connect, reset_on_return=None, dialect=sound.dialect)
    engine = QuickEngine(pool, sound.dialect, url, hide_parameters=hide_parameters)
    engine._compiled_cache = sound._compiled_cache
    return engine


class QuickConnection(Connection):
    """A connection that runs plain statements itself; it is closed with its engine."""

    def execute(self, statement, parameters=None, **options):
        rows = [parameters] if isinstance(parameters, dict) else list(parameters or ())
        statement_key = None if options else statement._generate_cache_key()
        if statement_key is None or self._dbapi_connection is None:
            return super().execute(statement, parameters, **options)
        names = tuple(sorted(rows[0])) if rows else ()
        key = statement_key.key, names, len(rows) > 1
        if key not in PREPARED:
            PREPARED[key] = prepare(self, statement, names, many=len(rows) > 1)
        prepared = PREPARED[key]
        if prepared is None:
            return super().execute(statement, parameters)
        if self._transaction is None:
            self._autobegin()
        return self._run(prepared, prepared.values(statement_key, rows))

    def scalar(self, statement, parameters=None, **options):
        return self.execute(statement, parameters, **options).scalar()

    def scalars(self, statement, parameters=None, **options):
        return self.execute(statement, parameters, **options).scalars()

    def exec_driver_sql(self, statement, *args, **options):
        if not statement.startswith("BEGIN"):
            return super().exec_driver_sql(statement, *args, **options)
        return self._run(Prepared(None, statement, (), None), [()])

    def _run(self, prepared: Prepared, values: list[tuple]):
        cursor = None
        try:
            cursor = self._dbapi_connection.dbapi_connection.cursor()
            if len(values) > 1:
                cursor.executemany(prepared.sql, values)
            else:
                cursor.execute(prepared.sql, values[0])
            return prepared.result(cursor)
        except BaseException as error:  # noqa: BLE001  # as SQLAlchemy does
            self._handle_dbapi_exception(error, prepared.sql, None, cursor, None)

    def close(self) -> None:
        if self._transaction is not None:
            self._transaction.close()
        if self.closed or self.invalidated or not self._is_reset():
            super().close()
        else:
            self.engine.idle.append(self)

    def _is_reset(self) -> bool:
        """Roll back what a commit that failed has left, as a pool does; False for the dead."""
        connection = self._dbapi_connection.dbapi_connection
        try:
            if connection.in_transaction:
                connection.rollback()
        except sqlite3.Error:
            return False
        return True

    def close_for_good(self) -> None:
        super().close()


class QuickEngine(Engine):
    """Engines hold their connections; as one thread is all there is, that is mostly one."""

    _connection_cls = QuickConnection

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.idle: list[QuickConnection] = []

    def connect(self) -> Connection:
        return self.idle.pop() if self.idle else super().connect()

    def dispose(self, *args, **options) -> None:
        while self.idle:
            self.idle.pop().close_for_good()
        super().dispose(*args, **options)


@dataclass(frozen=True)
class Changed:
    """What is left to be known of a statement that returns no rows."""

    rowcount: int


@dataclass(frozen=True, eq=False)
class Prepared:
    """A compiled statement, and how values go in and rows come out."""

    compiled: SQLCompiler | None
    sql: str
    binds: tuple[tuple[str, Any], ...]
    metadata: SimpleResultMetaData | None

    def values(self, statement_key, rows: Iterable[dict]) -> list[tuple]:
        """Return what is bound in each execution."""
        return [self._bound(statement_key, row) for row in rows or (None,)]

    def _bound(self, statement_key, row: dict | None) -> tuple:
        _, extracted, collected = statement_key
        given = self.compiled.construct_params(
            row, extracted_parameters=extracted, escape_names=False, _collected_params=collected
        )
        return tuple(
            given[name] if convert is None else convert(given[name]) for name, convert in self.binds
        )

    def result(self, cursor):
        if self.metadata is None:
            return Changed(cursor.rowcount)
        return IteratorResult(self.metadata, iter(cursor.fetchall()))


def prepare(connection: Connection, statement, names, *, many: bool) -> Prepared | None:
    """Compile a statement; None for one that asks more of SQLAlchemy than to bind and to fetch."""
    dialect = connection.dialect
    compiled, *_ = statement._compile_w_cache(
        dialect,
        compiled_cache=connection.engine._compiled_cache,
        column_keys=list(names),
        for_executemany=many,
    )
    asks_more = not isinstance(compiled, SQLCompiler) or any(
        (
            *(compiled.insert_prefetch, compiled.update_prefetch, compiled.effective_returning),
            *(compiled.post_compile_params, compiled.literal_execute_params),
        )
    )
    if asks_more:
        return None
    convert = compiled._bind_processors
    binds = tuple((name, convert.get(name)) for name in compiled.positiontup)
    columns = compiled._result_columns
    metadata = None
    if columns:
        converted = [each[3]._cached_result_processor(dialect, None) for each in columns]
        metadata = SimpleResultMetaData([each[0] for each in columns], _processors=converted)
    return Prepared(compiled, compiled.string, binds, metadata)
