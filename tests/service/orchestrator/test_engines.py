"""What is said of a database that cannot be used, by those who start an orchestrator."""

from __future__ import annotations

import sys

import pytest

from common.schema import SchemaUnknown
from orchestrator.database import open_database
from orchestrator.engines import (
    DatabaseRefused,
    DatabaseUnreachable,
    DatabaseUrlInvalid,
    DriverMissing,
    engine_on,
)
from tests.postgresql import PASSWORD


def test_the_short_name_of_postgresql_is_taken():
    engine = engine_on("postgresql://u@h/d")
    assert engine.dialect.driver == "psycopg"


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "no url", "postgresql+pg8000://u:secret@h"]
)
def test_another_database_is_refused_with_an_example(url):
    with pytest.raises(DatabaseUrlInvalid, match=r"postgresql\+psycopg://USER") as caught:
        engine_on(url)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DriverMissing, match=r"pip install 'fedgate\[postgresql\]'"):
        engine_on("postgresql+psycopg://u@h/d")


def test_a_database_that_is_not_there_is_said(postgresql, tmp_path):
    with pytest.raises(DatabaseUnreachable, match=r"test_none.*does not exist.*correct `database`"):
        open_database(postgresql.url("test_none"))
    with pytest.raises(DatabaseUnreachable, match=r"unable to open"):
        open_database(f"sqlite:///{tmp_path / 'no folder' / 'journal.db'}")


def test_a_server_that_is_not_there_is_said_without_the_password():
    with pytest.raises(DatabaseUnreachable, match=r"u:\*\*\*@127.0.0.1:1/d.*start it") as caught:
        open_database("postgresql+psycopg://u:hush-hush@127.0.0.1:1/d")
    assert "hush-hush" not in str(caught.value)


def test_a_wrong_password_is_said_and_never_printed(postgresql):
    name = postgresql.make_database()
    open_database(postgresql.tcp_url(name)).dispose()
    for wrong in ("hush-hush", ""):
        with pytest.raises(DatabaseRefused, match="correct the user, the password") as caught:
            open_database(postgresql.tcp_url(name, wrong))
        assert "hush-hush" not in str(caught.value)
    assert PASSWORD not in postgresql.log()


def test_a_database_of_a_newer_schema_is_left_alone(database_url):
    engine = open_database(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")
    engine.dispose()
    with pytest.raises(SchemaUnknown, match="start that version, or a newer one"):
        open_database(database_url)


def test_what_the_url_says_of_the_connection_wins(postgresql):
    url = postgresql.url(postgresql.make_database()) + "&application_name=ours"
    engine = open_database(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("show application_name").scalar() == "ours"
    engine.dispose()
