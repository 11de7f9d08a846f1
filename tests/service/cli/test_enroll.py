"""The commands by which members join, renew and are turned away, as people type them."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest
import tomli_w
from click.testing import Result
from structlog.testing import capture_logs
from typer import Typer
from typer.testing import CliRunner

from cli.enroll_commands import app as people
from common.certificates import fingerprint, read_chain
from common.errors import RequestError
from common.key_files import read_file
from common.renewing import present
from common.tls import Role
from gateway.cli import app as sites
from gateway.client import GrpcClient
from tests.fakes import VERSIONS
from tests.members import Clinic, files_in

ASKED = ("--federation", "acme", "--name", "north", "--request-out", "request.pem")
SIGNED = ("sign", "request.pem", "--name", "north", "--out", "answer.pem")


@pytest.fixture
async def clinic(tmp_path, monkeypatch):
    """A federation that enrols, and an admin's settings in the present folder."""
    monkeypatch.chdir(tmp_path)
    clinic = Clinic(tmp_path)
    with capture_logs():  # else the orchestrator's stand among what a command prints
        async with clinic.serving():
            write_settings(clinic, tmp_path / "operator.toml")
            yield clinic


def write_settings(clinic: Clinic, path: Path) -> None:
    tls = {name: str(file) for name, file in clinic.issue(Role.ADMIN, "ada")}
    path.write_text(tomli_w.dumps({"address": clinic.address, "tls": tls}))


async def run(app: Typer, *words: str) -> Result:
    """Run a command in this process, as a person would in the federation's folder."""
    return await asyncio.to_thread(CliRunner().invoke, app, words)


async def fedgate(*words: str) -> str:
    """Run a command that succeeds; return what it printed."""
    result = await run(people, *words)
    assert result.exit_code == 0, result.exception
    return result.stdout


async def gateway(*words: str) -> str:
    result = await run(sites, *words)
    assert result.exit_code == 0, result.exception
    return result.stdout


async def test_a_site_joins_with_one_line_and_is_turned_away_with_another(clinic):
    token = (await fedgate("create", "north")).strip()
    said = await gateway("enroll", "--token", token, "--out", "site/keys")
    assert "identity: fed://acme/gateway/north" in said
    keys = clinic.folder / "site" / "keys"
    assert sorted(path.name for path in keys.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert stat.S_IMODE((keys / "key.pem").stat().st_mode) == 0o600
    async with GrpcClient(clinic.address, files_in(keys)) as client:
        assert (await client.register(VERSIONS)).gateway == "north"
    listed = json.loads(await fedgate("list", "--format", "json"))
    (issued,) = listed["certificates"]
    assert issued["member"] == {"role": "gateway", "name": "north"}
    assert issued["fingerprint"] == present(files_in(keys)).fingerprint
    await fedgate("revoke", "north", "--role", "gateway")
    assert "revoked" in await fedgate("list")
    refused = await run(sites, "enroll", "--token", token, "--out", "again")
    assert "has been used for another key" in str(refused.exception)


async def test_a_site_without_a_network_joins_with_two_files(clinic):
    said = json.loads(await gateway("enroll", *ASKED, "--format", "json"))
    assert "PRIVATE" not in (clinic.folder / "request.pem").read_text()
    signed = json.loads(await fedgate(*SIGNED, "--format", "json"))
    assert signed["key_fingerprint"] == said["key_fingerprint"]
    root = fingerprint(read_chain(read_file(clinic.folder / "pki" / "ca.pem"))[0])
    assert signed["root"] == root
    taken = await gateway("enroll", "--certificate-in", "answer.pem", "--root", root)
    assert "fed://acme/gateway/north" in taken
    async with GrpcClient(clinic.address, files_in(clinic.folder / "keys")) as client:
        assert (await client.register(VERSIONS)).gateway == "north"


async def test_a_certificate_under_another_root_is_not_taken(clinic):
    await gateway("enroll", *ASKED)
    await fedgate(*SIGNED)
    refused = await run(sites, "enroll", "--certificate-in", "answer.pem", "--root", "0" * 64)
    assert "shows no root with the fingerprint 0000" in str(refused.exception)
    assert not (clinic.folder / "keys" / "cert.pem").exists()


async def test_a_person_joins_and_renews(clinic):
    token = (await fedgate("create", "bob", "--role", "admin")).strip()
    await fedgate("accept", "--token", token, "--out", "bob")
    files = files_in(clinic.folder / "bob")
    tls = {name: str(file) for name, file in files}
    (clinic.folder / "bob.toml").write_text(tomli_w.dumps({"address": clinic.address, "tls": tls}))
    before = present(files)
    await fedgate("renew", "--config", "bob.toml")
    assert present(files).fingerprint != before.fingerprint
    listed = json.loads(await fedgate(*["list", "--config", "bob.toml", "--format", "json"]))
    assert len(listed["certificates"]) == 2


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        ("gateway", "enroll", "say how to enrol, in one way"),
        ("gateway", "enroll --token x --request-out y", "say how to enrol, in one way"),
        ("gateway", "enroll --request-out y --name A --federation acme", "say how to enrol"),
        ("gateway", "enroll --token fedgate1-AAAA", "copy the whole line"),
        ("gateway", "enroll --certificate-in pki/ca.pem --root 12", "64 hexadecimal digits"),
        ("cli", "revoke", "say whom to revoke, in one way"),
        ("cli", "revoke a --fingerprint 12", "say whom to revoke, in one way"),
        ("cli", "sign pki/ca.pem --name a --out b", "the file holds none in PEM"),
    ],
)
async def test_what_is_not_understood_is_said_in_a_sentence(clinic, module, words, said):
    result = await run(people if module == "cli" else sites, *words.split())
    assert isinstance(result.exception, RequestError)
    assert said in str(result.exception)


async def test_a_persons_token_is_not_a_gateways(clinic):
    token = (await fedgate("create", "olga", "--role", "operator")).strip()
    refused = await run(sites, "enroll", "--token", token)
    assert "`fedgate enroll accept` takes it" in str(refused.exception)
