"""A gateway's trust file: without one that names a key it does not start."""

from __future__ import annotations

import pytest
import tomli_w
from typer.testing import CliRunner

from cli.plan_keys import KEY_FILE, PUBLIC_FILE, make_signing_key
from common.tls import Role
from gateway.cli import app
from gateway.trust import TrustFileUnusable, read_plan_keys
from tests.certificates import Authority
from tests.signing import PUBLIC_KEY

LINE = f"olga ed25519 {PUBLIC_KEY}"


def keys_in(tmp_path, text: str | bytes):
    path = tmp_path / "plan-keys"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_plan_keys(path)


def test_each_line_names_a_key_and_what_follows_a_hash_is_for_people(tmp_path):
    text = f"# the clinics' own\n\n{LINE}  # by phone, 3 May\n  bo.b ed25519 {'0' * 64}\n"
    assert keys_in(tmp_path, text) == {PUBLIC_KEY: "olga", "0" * 64: "bo.b"}


@pytest.mark.parametrize(
    "line",
    [
        PUBLIC_KEY,
        f"olga {PUBLIC_KEY}",
        f"olga rsa {PUBLIC_KEY}",
        f"olga ed25519 {PUBLIC_KEY[:-1]}",
        f"olga ed25519 {PUBLIC_KEY.upper()}",
        f"olga ed25519 {PUBLIC_KEY} more",
        f"Olga! ed25519 {PUBLIC_KEY}",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_a_line_that_is_none_is_named_by_its_number(tmp_path, line):
    with pytest.raises(TrustFileUnusable, match="line 2 is not NAME ed25519 KEY"):
        keys_in(tmp_path, f"{LINE}\n{line}\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "holds no key"), ("# nobody yet\n", "holds no key"), (b"\xff\xfe", "is not text")],
)
def test_a_file_without_a_key_is_refused(tmp_path, text, says):
    with pytest.raises(TrustFileUnusable, match=says):
        keys_in(tmp_path, text)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TrustFileUnusable, match="No such file"):
        read_plan_keys(tmp_path / "plan-keys")


def test_what_keygen_writes_can_be_put_there_as_it_is(tmp_path):
    line = make_signing_key(tmp_path / "alice", "alice")
    (name,) = read_plan_keys(tmp_path / "alice" / PUBLIC_FILE).values()
    assert name == "alice"
    assert (tmp_path / "alice" / PUBLIC_FILE).read_text() == f"{line}\n"
    assert (tmp_path / "alice" / KEY_FILE).stat().st_mode & 0o777 == 0o600


@pytest.fixture
def settings(tmp_path):
    """Write a gateway's settings with what is given for trust."""
    tls = Authority.make(tmp_path / "keys").issue(Role.GATEWAY, "clinic")

    def write(**trust: object):
        tables = {
            "address": "localhost:1",
            "state": str(tmp_path / "state"),
            "tls": {name: str(path) for name, path in tls},
            "task": {"reference": "tasks.ner:TASK", "labels": ["Disease"]},
            "data": {"path": str(tmp_path / "never read")},
            "policy": {"epsilon_budget": 8.0},
            **trust,
        }
        path = tmp_path / "gateway.toml"
        path.write_text(tomli_w.dumps(tables))
        return path

    return write


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_gateway_without_trust_does_not_start_and_says_what_to_do(settings, command):
    result = CliRunner().invoke(app, [command, "--config", str(settings())])
    assert result.exit_code == 1
    said = str(result.exception)
    assert "trust: Value error, is missing" in said
    assert "[trust] plan_keys" in said
    assert "fedgate plan keygen" in said


def test_a_gateway_whose_trust_file_names_nobody_does_not_start(settings, tmp_path):
    empty = tmp_path / "plan-keys"
    empty.write_text("# nobody\n")
    config = str(settings(trust={"plan_keys": str(empty)}))
    refused = CliRunner().invoke(app, ["run", "--config", config])
    assert isinstance(refused.exception, TrustFileUnusable)
    checked = CliRunner().invoke(app, ["check", "--offline", "--config", config])
    assert checked.exit_code == 1
    assert str(refused.exception) in " ".join(checked.stdout.split())
    assert not (tmp_path / "state").exists()
