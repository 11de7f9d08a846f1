"""What pydantic knows of a field, in words: its type, its bounds, its default."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from common.config import HOST_AND_PORT
from common.hyperparameters import Range
from common.ids import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = "**needed**"
TABLE_DEFAULT = "the table's defaults"
_KINDS = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "text",
    Range: "`{ minimum = ..., maximum = ... }`",
}
PATTERNS = {
    NAME_PATTERN: "`a-z`, `0-9`, `.` and `-`; at most 63",
    HOST_AND_PORT: "`host:port`",
}
_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def alternatives(annotation: Any) -> list[Any]:
    """Return the types that a value may have; None is not one of a file."""
    if get_origin(annotation) in {Union, UnionType}:
        return [kind for each in get_args(annotation) for kind in alternatives(each)]
    if hasattr(annotation, "__metadata__"):
        return alternatives(annotation.__origin__)
    return [] if annotation is NoneType else [annotation]


def kind(field: FieldInfo) -> str:
    """Return what a value is, as people call it."""
    return " or ".join(map(_word, alternatives(field.annotation)))


def _word(of: Any) -> str:
    origin = get_origin(of)
    if origin is Literal:
        return ", ".join(f'`"{each}"`' for each in get_args(of))
    if origin in {tuple, dict}:
        inner = [_word(alternatives(each)[0]) for each in get_args(of) if each is not ...]
        return f"list of {inner[0]}" if origin is tuple else f"table of {' to '.join(inner)}"
    if issubclass(of, Enum):
        return ", ".join(f'`"{each.value}"`' for each in of)
    return _KINDS[of]


def bounds(field: FieldInfo) -> str:
    """Return what a value must keep to."""
    of = "characters" if str in alternatives(field.annotation) else "entries"
    return ", ".join(words for each in _constraints(field) for words in _bound(each, of))


def _bound(constraint: Any, of: str) -> Iterator[str]:
    for name, sign in _SIGNS.items():
        if (limit := getattr(constraint, name, None)) is not None:
            yield f"{sign} {limit:.12g}"
    if isinstance(constraint, annotated_types.MinLen):
        yield "not empty"
    if isinstance(constraint, annotated_types.MaxLen):
        yield f"at most {constraint.max_length} {of}"
    if getattr(constraint, "pattern", None):
        yield PATTERNS.get(constraint.pattern, f"`{constraint.pattern}`")


def _constraints(field: FieldInfo) -> Iterator[Any]:
    """Yield those of the field itself, and those of a type that may also be left out."""
    inner = (each for kind in get_args(field.annotation) for each in _of_type(kind))
    for each in (*field.metadata, *inner):
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)


def _of_type(annotated: Any) -> tuple[Any, ...]:
    return tuple(getattr(annotated, "__metadata__", ()))


def default(field: FieldInfo) -> str:
    """Return what holds where a file says nothing; nothing where that is nothing."""
    if field.is_required():
        return NEEDED
    value = field.get_default(call_default_factory=False)
    if value is None or value in ((), {}, ""):
        return ""
    if isinstance(value, BaseModel):
        return TABLE_DEFAULT
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str | Path) else f"`{value!r}`"
