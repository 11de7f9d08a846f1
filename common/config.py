"""Settings from a TOML file, overlaid by the environment, checked once at the edge."""

from __future__ import annotations

import re
import tomllib
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic_settings import PydanticBaseSettingsSource


_PASSWORD = re.compile(r"://\S*@")  # in a URL, with the user before it


HOST_AND_PORT = r".+:\d+$"


def each_of(addresses: str | Sequence[str]) -> tuple[str, ...]:
    """Return each of one address or several, in their order."""
    return (addresses,) if isinstance(addresses, str) else tuple(addresses)


def _are_addresses(given: str | tuple[str, ...]) -> str | tuple[str, ...]:
    several = each_of(given)
    if not several or not all(re.fullmatch(HOST_AND_PORT, each) for each in several):
        msg = "must be host:port, or a list of such"
        raise ValueError(msg)
    return given


Address = Annotated[str, Field(pattern=HOST_AND_PORT)]
Addresses = Annotated[str | tuple[str, ...], AfterValidator(_are_addresses)]  # in their order


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, and nobody else's to call."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class SettingsInvalid(RequestError):
    """A settings file cannot be read, or a value in it cannot be."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{path} cannot be used; correct it and start again:\n{lines}")


class FileSettings(BaseSettings):
    """Settings whose fields come from a file; `FEDGATE__SECTION__FIELD` in the environment wins."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="FEDGATE__", env_nested_delimiter="__"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment lie over the file."""
        return env_settings, init_settings


SettingsT = TypeVar("SettingsT", bound=FileSettings)


def load_settings(kind: type[SettingsT], path: Path) -> SettingsT:
    """Return the settings in the TOML file at `path`.

    Raises:
        SettingsInvalid: the file cannot be read, or a field does not hold what it must; every
            such field is named.
    """
    return parse_settings(kind, read_toml(path), path)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; raise SettingsInvalid if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsInvalid(path, [error.strerror or str(error)]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid(path, [f"is not TOML: {error}"]) from error


def parse_settings(kind: type[SettingsT], tables: dict[str, Any], path: Path) -> SettingsT:
    """Return the settings in `tables`, read from `path`; raise SettingsInvalid."""
    try:
        return kind(**tables)
    except ValidationError as error:
        raise SettingsInvalid(path, problems_of(error)) from error


def problems_of(error: ValidationError) -> list[str]:
    """Return one line for each field that does not hold what it must."""
    lines = []
    for each in error.errors(include_url=False, include_context=False):
        where = ".".join(map(str, each["loc"])) or "file"
        given = each["input"]  # of a table only the names: one of its values may be a secret
        got = _PASSWORD.sub("://***@", str(sorted(given) if isinstance(given, dict) else given))
        lines.append(f"{where}: {each['msg']} (got {got[:80]!r})")
    return lines
