"""How a person may say who is asking."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cli.sign_in import SignIn, TokenUnreadable

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
