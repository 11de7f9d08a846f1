"""The tables, and an engine whose schema is the newest."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    event,
    insert,
)

from common.schema import Schema, bring_up_to_date
from orchestrator.engines import engine_on, opening

METADATA = MetaData()

RUNS = Table(
    "runs",
    METADATA,
    Column("run_id", String(63), primary_key=True),
    Column("plan", LargeBinary, nullable=False),  # as it was sent: its digest is of these bytes
    Column("plan_digest", String(64), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("plan_signature", JSON),  # of the operator who ordered it; none: of before
)

EVENTS = Table(
    "events",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("run_id", String(63), nullable=False),
    Column("sequence", Integer, nullable=False),  # from 1, without a gap
    Column("epoch", Integer, nullable=False),  # of the process that wrote it
    Column("kind", String(40), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),  # for display
    UniqueConstraint("run_id", "sequence", name="uq_events_run_id_sequence"),
)

EPOCHS = Table(  # one row; whoever raised it last may write
    "epochs",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("epoch", Integer, nullable=False),
)

BLOBS = Table(
    "blobs",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("byte_length", BigInteger, nullable=False),
)

LEDGER_HEADS = Table(  # the newest of each gateway's ledger that was countersigned
    "ledger_heads",
    METADATA,
    Column("gateway", String(63), primary_key=True),
    Column("insecure_deterministic", Boolean, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

CONFIRMATIONS = Table(  # what needs two people, and who has asked for it
    "confirmations",
    METADATA,
    Column("digest", String(64), primary_key=True),  # of the method and the request
    Column("asked_by", String(63), nullable=False),
    Column("confirmed_by", String(63), nullable=True),
    Column("good_until", BigInteger, nullable=False),  # seconds since 1970
)

ENROLMENT_TOKENS = Table(
    "enrolment_tokens",
    METADATA,
    Column("secret_hash", String(64), primary_key=True),  # SHA-256: the secret is kept nowhere
    Column("role", String(16), nullable=False),
    Column("name", String(63), nullable=False),
    Column("created_by", String(63), nullable=False),
    Column("expires", DateTime(timezone=True), nullable=False),
    Column("used_for", String(64)),  # the key's digest; null: not used
    Column("chain", LargeBinary),  # what the holder of that key was given
)

CERTIFICATES = Table(  # signed here, but for those that ended long ago
    "certificates",
    METADATA,
    Column("fingerprint", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("name", String(63), nullable=False),
    Column("begins", DateTime(timezone=True), nullable=False),
    Column("ends", DateTime(timezone=True), nullable=False),
)

REVOCATIONS = Table(
    "revocations",
    METADATA,
    Column("subject", String(80), primary_key=True),  # a fingerprint, or <role>/<name>
    Column("revoked_by", String(63), nullable=False),
    Column("revoked_at", DateTime(timezone=True), nullable=False),
)

AUDIT_RECORDS = Table(  # append-only, chained by hash
    "audit_records",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),  # from 1, without a gap
    Column("body", LargeBinary, nullable=False),  # canonical JSON, as the hash covers it
    Column("hash", String(64), nullable=False),
)

AUDIT_CHECKPOINTS = Table(
    "audit_checkpoints",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
    Column("at", String(32), nullable=False),  # as it was signed
    Column("public_key", String(64), nullable=False),
    Column("signature", String(128), nullable=False),
)

LINEAGE = Table(  # a signed statement for all that a run published
    "lineage",
    METADATA,
    Column("run_id", String(63), primary_key=True),
    # the round's number; the model's comes after the last
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),  # canonical JSON, as it was signed
    Column("public_key", String(64), nullable=False),
    Column("signature", String(128), nullable=False),
)


@event.listens_for(EPOCHS, "after_create")
def _begin_epochs(table: Table, connection: Connection, **_options: object) -> None:
    connection.execute(insert(table).values(id=1, epoch=0))


SCHEMA = Schema(METADATA, migrations="orchestrator:migrations", newest="0007")


def open_database(url: str) -> Engine:
    """Return an engine on `url` whose schema is the newest; its commits are durable.

    Raises:
        DatabaseUrlInvalid, DriverMissing, DatabaseRefused, DatabaseUnreachable: it does not open.
        SchemaUnknown: another version of this software made its tables, perhaps a newer one.
    """
    engine = engine_on(url)
    try:
        with opening(url):
            bring_up_to_date(engine, SCHEMA)
    except BaseException:
        engine.dispose()
        raise
    return engine
