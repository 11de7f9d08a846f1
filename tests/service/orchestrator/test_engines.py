"""What is said of a database that cannot be used, by those who start an orchestrator."""

from __future__ import annotations

import sys

import pytest

from common.schema import SchemaUnknown
from common.tls import TlsFiles
from orchestrator.config import OrchestratorConfig
from orchestrator.database import open_database
from orchestrator.engines import (
    DatabaseRefused,
    DatabaseUnreachable,
    DatabaseUrlInvalid,
    DriverMissing,
    PasswordMisplaced,
    PasswordUnreadable,
    engine_on,
    url_of,
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


@pytest.fixture
def with_password(tmp_path):
    """Settings whose password stands in a file, which is given with the URL."""
    nowhere = tmp_path / "nowhere"
    tls = TlsFiles(authority=nowhere, certificate=nowhere, key=nowhere)

    def settings(url: str, password: bytes) -> OrchestratorConfig:
        file = tmp_path / "password"
        file.write_bytes(password)
        return OrchestratorConfig(
            federation="acme", tls=tls, database=url, database_password_file=file
        )

    return settings


def test_the_password_may_stand_in_a_file(postgresql, with_password):
    url = postgresql.tcp_url(postgresql.make_database()).replace(f":{PASSWORD}@", "@")
    with pytest.raises(DatabaseRefused):
        open_database(url)
    open_database(url_of(with_password(url, f"{PASSWORD}\n".encode()))).dispose()


def test_every_character_of_a_password_in_a_file_is_part_of_it(with_password):
    odd = " p@ss:w/rd%20 "
    url = url_of(with_password("postgresql://u@h/d", f"{odd}\n".encode()))
    assert engine_on(url).url.password == odd


@pytest.mark.parametrize("password", [b"", b"\n", b"one\ntwo\n", b"\xff"])
def test_a_file_without_a_password_is_named_and_not_quoted(with_password, password):
    with pytest.raises(PasswordUnreadable, match=r"password .*database_password_file") as caught:
        url_of(with_password("postgresql://u@h/d", password))
    assert "two" not in str(caught.value)


def test_a_password_file_that_is_not_there_is_named(with_password, tmp_path):
    settings = with_password("postgresql://u@h/d", b"p")
    (tmp_path / "password").unlink()
    with pytest.raises(PasswordUnreadable, match="No such file"):
        url_of(settings)


@pytest.mark.parametrize("url", ["", "sqlite:////a/file.db", "postgresql://u:there@h/d"])
def test_a_password_that_has_no_place_is_refused(with_password, url):
    with pytest.raises(PasswordMisplaced, match="unset the file") as caught:
        url_of(with_password(url, b"p"))
    assert "there" not in str(caught.value)
