"""Settings: a file, overlaid by the environment, with every fault named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from common.config import Addresses, FileSettings, SettingsInvalid, parse_settings, read_toml

FILE = Path("some.toml")


class Inner(BaseModel):
    size: int = 1


class Some(FileSettings):
    name: str
    data: Inner = Inner()


def test_the_environment_lies_over_the_file(monkeypatch):
    monkeypatch.setenv("FEDGATE__DATA__SIZE", "3")
    found = parse_settings(Some, {"name": "a", "data": {"size": 2}}, FILE)
    assert (found.name, found.data.size) == ("a", 3)


def test_the_folder_of_corpora_is_no_setting(monkeypatch):
    monkeypatch.setenv("FEDGATE_DATA", "/somewhere")
    assert parse_settings(Some, {"name": "a"}, FILE).data.size == 1


def test_every_fault_is_named_with_its_field_and_value():
    with pytest.raises(SettingsInvalid) as caught:
        parse_settings(Some, {"data": {"size": "x"}, "nmae": "a"}, FILE)
    text = str(caught.value)
    assert "some.toml" in text
    assert "name: Field required" in text
    assert "nmae: Extra inputs are not permitted (got 'a')" in text
    assert "data.size" in text


def test_a_missing_file_is_named():
    with pytest.raises(SettingsInvalid, match="No such file"):
        read_toml(Path("/nonexistent/x.toml"))


def test_no_password_of_a_url_is_shown():
    with pytest.raises(SettingsInvalid, match=r"nmae.*postgresql://\*\*\*@host/d") as caught:
        parse_settings(Some, {"name": "a", "nmae": "postgresql://u:hush/@1@host/d"}, FILE)
    assert "hush" not in str(caught.value)


class Calling(FileSettings):
    address: Addresses


@pytest.mark.parametrize("given", ["a:1", ("a:1", "b:2")])
def test_an_address_is_one_or_several_in_order(given):
    assert parse_settings(Calling, {"address": given}, FILE).address == given


@pytest.mark.parametrize(("given", "read"), [("c:3", "c:3"), ('["c:3", "d:4"]', ("c:3", "d:4"))])
def test_the_environment_names_one_address_or_several(monkeypatch, given, read):
    monkeypatch.setenv("FEDGATE__ADDRESS", given)
    assert parse_settings(Calling, {"address": "a:1"}, FILE).address == read


@pytest.mark.parametrize("given", ["a", [], ["a:1", "b"], 5])
def test_what_is_no_address_is_refused(given):
    with pytest.raises(SettingsInvalid, match=r"address: .*host:port|address\.str"):
        parse_settings(Calling, {"address": given}, FILE)
