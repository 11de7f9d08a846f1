"""The ledger's tables and the engine that writes them durably."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Boolean,
    CheckConstraint,
    Column,
    Engine,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from common.schema import REVISIONS, Schema, SchemaUnknown, bring_up_to_date
from gateway.charges import LedgerUnreadable

METADATA = MetaData()

# one row: what the whole ledger is stamped with
STAMP = Table(
    "stamp",
    METADATA,
    Column("id", Integer, CheckConstraint("id = 1", name="one_stamp"), primary_key=True),
    Column("data_key", LargeBinary, nullable=False),  # of the digests of data; never leaves
    Column("insecure_deterministic", Boolean, nullable=False),
)

DATA_SETS = Table(
    "data_sets",
    METADATA,
    Column("name", String, primary_key=True),
    Column("digest", String, nullable=False),  # keyed, of the whole content
)

UNITS = Table(
    "units",
    METADATA,
    Column("data_set", ForeignKey("data_sets.name", ondelete="CASCADE"), primary_key=True),
    Column("digest", LargeBinary, primary_key=True),  # keyed, of one example
)

RUNS = Table(
    "runs",
    METADATA,
    Column("run", String, primary_key=True),
    Column("gateway", String, nullable=False),
    Column("plan", String, nullable=False),
    Column("effective", String, nullable=False),  # the hyperparameters, as JSON
    Column("data_set", ForeignKey("data_sets.name", ondelete="CASCADE"), nullable=False),
    Column("data_digest", String, nullable=False),
    Column("delta", Float, nullable=False),
    Column("unit", String, nullable=False),
    Column("relation", String, nullable=False),
)

CHARGES = Table(
    "charges",
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("run", ForeignKey("runs.run", ondelete="RESTRICT"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("parent", String, nullable=False),
    Column("mechanism", String, nullable=False),
    Column("noise_multiplier", Float, nullable=False),
    Column("sampling_rate", Float, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("clipping_norm", Float, nullable=False),  # that the round begins with
    Column("secret", LargeBinary),  # erased when the round is published
    Column("update_digest", String),
    Column("state", String, nullable=False),
    Column("next_clipping_norm", Float),  # that it leads to, with its update; fixed clipping: none
    UniqueConstraint("run", "round", name="one_charge_a_round"),
    sqlite_autoincrement=True,
)

REFUSED_PARENTS = Table(
    "refused_parents",
    METADATA,
    Column("run", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("parent", String, primary_key=True),
)

# the chain: everything that may be said of what was spent, in the order of writing
RECORDS = Table(
    "records",
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("facts", String, nullable=False),  # canonical JSON
    Column("previous", String, nullable=False),  # hash of the record before
    Column("hash", String, nullable=False),
)

# one row: whose word is taken, and the newest head that it has countersigned
ORCHESTRATOR = Table(
    "orchestrator",
    METADATA,
    Column("id", Integer, CheckConstraint("id = 1", name="one_orchestrator"), primary_key=True),
    Column("federation", String, nullable=False),
    Column("public_key", String, nullable=False),  # since the first countersignature
    Column("sequence", Integer, nullable=False),
    Column("hash", String, nullable=False),
    Column("signature", String, nullable=False),
)

# checkpoints of the orchestrator's audit log: the last ones, and any that tell another story
AUDIT_HEADS = Table(
    "audit_heads",
    METADATA,
    Column("seen", Integer, primary_key=True),  # in this order
    Column("federation", String, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("hash", String, nullable=False),
    Column("at", String, nullable=False),
    Column("public_key", String, nullable=False),
    Column("signature", String, nullable=False),
    Column("problem", String, nullable=False),  # empty: it goes on from the one before
    Column("accepted", Boolean, nullable=False),  # or its problem was, by an administrator
)

SCHEMA = Schema(METADATA, migrations="gateway:migrations", newest="0004")


def connect(url: URL) -> Engine:
    """Return an engine whose commits are on the disk when they return, its tables up to date.

    Raises:
        LedgerUnreadable: the file is damaged, or of a newer version of this software.
    """
    pool = {"poolclass": StaticPool} if file_of(url) is None else {}
    engine = create_engine(url, hide_parameters=True, **pool)  # errors shall not show secrets
    event.listen(engine, "connect", _make_durable)
    event.listen(engine, "begin", _begin)
    try:
        with readable():
            _check(engine)
            bring_up_to_date(engine, SCHEMA)
    except LedgerUnreadable:
        engine.dispose()
        raise
    return engine


def connect_to_read(url: URL) -> Engine:
    """Return an engine that reads a file beside its writer, and makes and changes nothing.

    Raises:
        LedgerUnreadable: the file is damaged, or of another version of this software.
    """
    # not mode=ro: only a reader that may write tidies away the log that opening it has made
    existing = {"uri": "true", "mode": "rw"}
    there = url.set(database=f"file:{quote(str(file_of(url)))}").update_query_dict(existing)
    engine = create_engine(there, hide_parameters=True)
    event.listen(engine, "connect", _forbid_writing)
    event.listen(engine, "begin", _begin_reading)
    try:
        with readable():
            _check(engine)
            _check_version(engine)
    except LedgerUnreadable:
        engine.dispose()
        raise
    return engine


def file_of(url: URL) -> Path | None:
    """Return the file of a ledger, or None for one in memory."""
    in_memory = not url.database or url.database == ":memory:"
    return None if in_memory else Path(str(url.database))


@contextmanager
def readable() -> Iterator[None]:
    """Turn whatever the database reports into LedgerUnreadable: the ledger fails closed."""
    try:
        yield
    except (DBAPIError, SchemaUnknown, sqlite3.Error) as error:
        raise LedgerUnreadable(str(error).splitlines()[0]) from error


def pragma(engine: Engine, statement: str) -> Any:
    """Run one PRAGMA outside of any transaction and return its first value."""
    connection = engine.raw_connection()
    try:
        row = connection.cursor().execute(f"PRAGMA {statement}").fetchone()
        return row and row[0]
    finally:
        connection.close()


def _make_durable(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says
    for statement in (
        "journal_mode = WAL",
        "synchronous = FULL",  # fsync before a commit returns
        "secure_delete = ON",  # an erased secret is overwritten
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {statement}")


def _forbid_writing(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON")


def _begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_reading(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")  # what is read together was true together


def _check_version(engine: Engine) -> None:
    with engine.connect() as connection:
        found = connection.execute(select(REVISIONS.c.version_num)).scalar()
    if found != SCHEMA.newest:
        raise LedgerUnreadable(
            f"it is of version {found}, this software's is {SCHEMA.newest}: starting the gateway "
            "brings an older one up to date"
        )


def _check(engine: Engine) -> None:
    with engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check").scalar()
    if found != "ok":
        raise LedgerUnreadable(f"its check says {found}")
