"""How a person may say who is asking."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cli.config import OperatorConfig
from cli.sign_in import SignIn, TokenUnreadable
from common.config import SettingsInvalid, parse_settings

FILES = {"certificate": Path("cert.pem"), "key": Path("key.pem")}


@pytest.mark.parametrize("given", [FILES, {"token_file": Path("token")}, {"token": "a.b.c"}])
def test_a_certificate_with_its_key_or_a_token_is_enough(given):
    SignIn(authority=Path("ca.pem"), **given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"certificate": Path("cert.pem")},
        {"key": Path("key.pem")},
        {**FILES, "token_file": Path("token")},
        {"key": Path("key.pem"), "token": "a.b.c"},
    ],
    ids=lambda given: " and ".join(given) or "nothing",
)
def test_neither_half_of_one_nor_both_will_do(given):
    with pytest.raises(ValidationError, match="needs certificate and key, or else token_file"):
        SignIn(authority=Path("ca.pem"), **given)


def test_a_token_is_not_shown():
    assert "a.b.c" not in repr(SignIn(authority=Path("ca.pem"), token="a.b.c"))  # noqa: S106


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "is empty"),
        ("a b", "no token"),
        ("ä", "no token"),
        ("x" * 7169, "7169 bytes, at most 7168"),
    ],
    ids=["empty", "two words", "not ASCII", "too long"],
)
def test_what_is_no_token_is_said_before_a_call(token, why):
    with pytest.raises(TokenUnreadable, match=why):
        SignIn(authority=Path("ca.pem"), token=token).bearer_token()


def test_settings_that_are_wrong_are_said_to_be_without_the_token():
    tables = {"tls": {"authority": "ca.pem", "token": "secret.a.b", "key": "key.pem"}}
    with pytest.raises(SettingsInvalid, match="needs certificate and key") as caught:
        parse_settings(OperatorConfig, {"address": "a:1", **tables}, Path("operator.toml"))
    assert "secret" not in str(caught.value)
