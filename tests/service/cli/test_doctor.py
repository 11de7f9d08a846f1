"""`fedgate doctor`: an orchestrator's machine and an operator's, beside a real server."""

from __future__ import annotations

import asyncio
import json

import pytest
import tomli_w
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli.doctor_command import NothingToLookAt
from cli.main import app
from cli.plan_keys import KEY_FILE, make_signing_key
from common.tls import Role
from orchestrator.checking import Checking
from orchestrator.leadership import AdvisoryLock
from tests.members import Clinic


@pytest.fixture
async def clinic(tmp_path, monkeypatch):
    """A federation that serves, with settings of both in the present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDGATE_OPERATOR_CONFIG", raising=False)
    clinic = Clinic(tmp_path)
    with capture_logs():
        async with clinic.serving():
            yield clinic


def write_orchestrator(clinic: Clinic, **changes: object) -> None:
    tables = clinic.config.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    (clinic.folder / "orchestrator.toml").write_text(tomli_w.dumps(tables | changes))


def write_operator(clinic: Clinic, **changes: object) -> None:
    tls = {name: str(path) for name, path in clinic.issue(Role.OPERATOR, "olga")}
    tables = {"address": clinic.address, "tls": tls, **changes}
    (clinic.folder / "operator.toml").write_text(tomli_w.dumps(tables))


async def told(*words: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    said = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", "--format", "json", *words])
    return said.exit_code, json.loads(said.stdout)


def wrong(findings: list[dict[str, str]]) -> dict[str, str]:
    return {each["about"]: each["message"] for each in findings if each["level"] != "ok"}


async def test_both_are_looked_at_where_both_settings_lie(clinic):
    write_orchestrator(clinic)
    make_signing_key(clinic.folder / "olga", "olga")
    write_operator(clinic, signing_key=str(clinic.folder / "olga" / KEY_FILE))
    code, found = await told()
    assert code == 0
    assert {side: wrong(findings) for side, findings in found.items()} == {
        "orchestrator": {},
        "operator": {},
    }
    about = {each["about"] for each in found["orchestrator"]}
    assert {"certificate", "state", "disk", "database", "enrolment", "address"} <= about
    about = {each["about"] for each in found["operator"]}
    assert {"certificate", "signing key", "host name", "orchestrator", "clock"} <= about


async def test_text_says_it_line_by_line(clinic):
    write_operator(clinic)
    said = await asyncio.to_thread(CliRunner().invoke, app, ["doctor"])
    assert said.exit_code == 0
    assert "ok      orchestrator  answers this person; it has 0 runs" in said.stdout
    assert "problems: 0, warnings: 0" in said.stdout


async def test_a_role_that_may_not_ask_is_told_so(clinic):
    write_operator(clinic, tls={n: str(p) for n, p in clinic.issue(Role.GATEWAY, "a")})
    code, found = await told()
    assert code == 1
    assert "the role gateway" in wrong(found["operator"])["orchestrator"]


async def test_an_operators_key_that_signs_nothing_is_named(clinic):
    write_operator(clinic, signing_key="nowhere.pem")
    code, found = await told()
    assert code == 1
    assert "nowhere.pem cannot sign plans" in wrong(found["operator"])["signing key"]


async def test_a_certificate_that_is_over_ends_the_look(clinic):
    tls = {n: str(p) for n, p in clinic.forged(["fed://acme/operator/o"], days=(-2.0, -1.0))}
    write_operator(clinic, tls=tls)
    code, found = await told()
    assert code == 1
    assert list(wrong(found["operator"])) == ["certificate"]


async def test_an_orchestrator_that_does_not_serve_is_told_which_ports_are_free(tmp_path):
    clinic = Clinic(tmp_path)
    checking = Checking(clinic.config)
    await checking.look()
    assert checking.findings.are_fine
    said = [each.message for each in checking.findings.all if each.about == "address"]
    assert said == ["127.0.0.1:0 is free to listen on"] * 2
    assert not (tmp_path / "state").exists()


async def test_what_is_wrong_with_an_orchestrators_files_is_named(clinic, tmp_path):
    (tmp_path / "file").write_text("")
    tls = {n: str(p) for n, p in clinic.issue(Role.GATEWAY, "a")}
    write_orchestrator(clinic, tls=tls, state=str(tmp_path / "file" / "state"))
    code, found = await told("--orchestrator", "orchestrator.toml")
    assert code == 1
    bad = wrong(found["orchestrator"])
    assert "fed://acme/gateway/a" in bad["identity"]
    assert "cannot be written to" in bad["state"]


async def test_a_database_that_is_none_is_named(clinic, tmp_path):
    (tmp_path / "torn.db").write_bytes(b"not a database at all" * 100)
    write_orchestrator(clinic, database=f"sqlite:///{tmp_path / 'torn.db'}")
    code, found = await told("--orchestrator", "orchestrator.toml")
    assert code == 1
    assert "cannot open sqlite" in wrong(found["orchestrator"])["database"]


async def test_over_postgresql_another_one_that_leads_is_named(tmp_path, postgresql):
    clinic = Clinic(tmp_path, database=postgresql.url(postgresql.make_database()))
    checking = Checking(clinic.config)
    await checking.look()
    assert checking.findings.are_fine
    lock = AdvisoryLock(clinic.database)
    assert lock.try_hold()
    try:
        checking = Checking(clinic.config)
        await checking.look()
    finally:
        lock.close()
    (found,) = [each for each in checking.findings.all if each.level != "ok"]
    assert found.kind == "AnotherLeads"


def test_where_there_is_nothing_to_look_at_it_says_what_to_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDGATE_OPERATOR_CONFIG", raising=False)
    result = CliRunner().invoke(app, ["doctor"])
    assert isinstance(result.exception, NothingToLookAt)
