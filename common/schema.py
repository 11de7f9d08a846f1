"""A database's schema: made whole where there is none, brought up to date where it is old."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import (
    Column,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)

from common.errors import UnavailableError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

# as Alembic makes it
REVISIONS = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32)),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


class SchemaUnknown(UnavailableError):
    """A database's schema is of a version that this software has no migration from."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the database was written by another version of Fedgate ({problem}): "
            "start that version, or a newer one"
        )


@dataclass(frozen=True)
class Schema:
    """The tables of this version, and the migrations that lead to them."""

    tables: MetaData
    migrations: str  # the folder of Alembic's scripts: a path, or package:folder
    newest: str  # the last of them


def bring_up_to_date(engine: Engine, schema: Schema) -> None:
    """Leave `engine` with the tables of `schema`, in one transaction.

    An empty database gets them at once, without Alembic and the 10 MiB that it takes; a test holds
    that its migrations lead to the same.

    Raises:
        SchemaUnknown: there are tables of another version, perhaps a newer one, or of none.
    """
    with engine.begin() as connection:
        present = _revision(connection)
        if present is None:
            if lost := schema.tables.tables.keys() & inspect(connection).get_table_names():
                raise SchemaUnknown(f"it holds {sorted(lost)} but no version")
            schema.tables.create_all(connection)
            REVISIONS.metadata.create_all(connection)
            connection.execute(insert(REVISIONS).values(version_num=schema.newest))
        elif present != schema.newest:
            upgrade(connection, schema)


def upgrade(connection: Connection, schema: Schema) -> None:
    """Run the migrations that `connection`'s database lacks."""
    from alembic import command  # noqa: PLC0415  # 10 MiB that most starts do without
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", schema.migrations.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaUnknown(str(error)) from error


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(REVISIONS.name):
        return None
    return connection.execute(select(REVISIONS.c.version_num)).scalar()
