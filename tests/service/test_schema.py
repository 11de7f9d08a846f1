"""Both sides' tables: as the code makes them in an empty database, and as the migrations do."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from common.schema import SchemaUnknown, bring_up_to_date, upgrade
from gateway.ledger_tables import SCHEMA as LEDGER
from orchestrator.database import SCHEMA as JOURNAL

SCHEMAS = pytest.mark.parametrize(
    ("schema", "fresh"),
    [(JOURNAL, "sqlite"), (JOURNAL, "postgresql"), (LEDGER, "sqlite")],
    ids=["journal in sqlite", "journal in postgresql", "ledger"],
    indirect=["fresh"],
)


@pytest.fixture
def fresh(request):
    """Make an empty database."""
    engines = []

    def make():
        url = "sqlite://"
        if request.param == "postgresql":
            server = request.getfixturevalue("postgresql")
            url = server.url(server.make_database())
        engines.append(create_engine(url))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


def tables_of(engine) -> dict[str, object]:
    """Return all that the database says of its tables, and the rows that they begin with."""
    look, tables = inspect(engine), {}
    for name in look.get_table_names():
        columns = [
            (c["name"], str(c["type"]), c["nullable"], c["default"]) for c in look.get_columns(name)
        ]
        with engine.connect() as connection:
            rows = connection.execute(text(f"select * from {name}")).all()  # noqa: S608 (a table's name)
        keys = look.get_pk_constraint(name), look.get_foreign_keys(name)
        keys = *keys, look.get_unique_constraints(name)
        tables[name] = columns, keys, look.get_check_constraints(name), rows
    return tables


@SCHEMAS
def test_the_migrations_lead_to_what_an_empty_database_gets_at_once(schema, fresh):
    at_once, migrated = fresh(), fresh()
    bring_up_to_date(at_once, schema)
    with migrated.begin() as connection:
        upgrade(connection, schema)
        assert compare_metadata(MigrationContext.configure(connection), schema.tables) == []
    assert tables_of(at_once) == tables_of(migrated)


@pytest.mark.parametrize("schema", [JOURNAL, LEDGER], ids=["journal", "ledger"])
def test_the_newest_migration_is_the_last(schema):
    config = Config()
    config.set_main_option("script_location", schema.migrations)
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == schema.newest


@SCHEMAS
def test_what_is_there_stays_as_it_is(schema, fresh):
    engine = fresh()
    bring_up_to_date(engine, schema)
    with engine.begin() as connection:
        connection.execute(text("create table more (n integer)"))
    before = tables_of(engine)
    bring_up_to_date(engine, schema)
    assert tables_of(engine) == before


@SCHEMAS
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            "update alembic_version set version_num = '9999'",
            r"9999.*start that version, or a newer one",
        ),
        ("drop table alembic_version", "but no version"),
    ],
)
def test_a_schema_of_another_version_or_of_none_is_left_alone(schema, fresh, damage, said):
    engine = fresh()
    bring_up_to_date(engine, schema)
    with engine.begin() as connection:
        connection.execute(text(damage))
    before = tables_of(engine)
    with pytest.raises(SchemaUnknown, match=said):
        bring_up_to_date(engine, schema)
    assert tables_of(engine) == before
