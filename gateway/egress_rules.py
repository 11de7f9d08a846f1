"""What a field that leaves may hold, and the classes that the egress manifest sorts fields into."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from common.enrolment import is_bare


class EgressClass(StrEnum):
    """What a field that leaves can tell of the data."""

    DP = "dp"  # noised before it leaves and charged to the ledger, or computed from that alone
    PUBLIC = "public"  # fixed before any data are read
    OPERATIONAL = "operational"  # the protocol's own state: echoes, counts of messages, reasons
    SEALED = "sealed"  # a hash that covers a secret: nothing of what it covers can be found by it
    MASKED = "masked"  # hidden in a sum by secure aggregation; nothing yet


class Rule(Protocol):
    """What a field may hold."""

    @property
    def words(self) -> str:
        """The rule, for people."""
        ...

    def admits(self, value: Any) -> bool:
        """Whether `value` may leave."""
        ...


@dataclass(frozen=True)
class Text:
    """Text of one pattern, which also bounds its length; never free text."""

    pattern: str
    words: str

    def admits(self, value: Any) -> bool:
        """Whether all of `value` fits the pattern."""
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None


@dataclass(frozen=True)
class OneOf:
    """One of a closed list of words."""

    values: tuple[str, ...]

    @property
    def words(self) -> str:
        """The list."""
        return f"one of {', '.join(self.values)}"

    def admits(self, value: Any) -> bool:
        """Whether `value` is in the list; of an enumeration this is the name."""
        return value in self.values


@dataclass(frozen=True)
class Whole:
    """A whole number that is not negative."""

    most: int

    @property
    def words(self) -> str:
        """The bounds."""
        return f"a whole number up to {self.most}"

    def admits(self, value: Any) -> bool:
        """Whether `value` is within the bounds."""
        return isinstance(value, int) and 0 <= value <= self.most


@dataclass(frozen=True)
class Finite:
    """A number that is not negative, and finite."""

    words: str = "a finite number, not negative"

    def admits(self, value: Any) -> bool:
        """Whether `value` is one."""
        return isinstance(value, int | float) and value >= 0 and math.isfinite(value)


@dataclass(frozen=True)
class Flag:
    """Yes or no."""

    words: str = "yes or no"

    def admits(self, value: Any) -> bool:
        """Whether `value` is either."""
        return isinstance(value, bool)


@dataclass(frozen=True)
class Octets:
    """Bytes of a bounded number."""

    most: int

    @property
    def words(self) -> str:
        """The bound."""
        return f"at most {self.most} bytes"

    def admits(self, value: Any) -> bool:
        """Whether there are no more."""
        return isinstance(value, bytes | memoryview) and len(value) <= self.most


@dataclass(frozen=True)
class SigningRequest:
    """A request for a certificate that holds what it must, and nothing else."""

    words: str = "a signing request that holds one member's name, one public key and a signature"

    def admits(self, value: Any) -> bool:
        """Whether `value` is one."""
        return isinstance(value, bytes) and is_bare(value)


@dataclass(frozen=True)
class Entry:
    """One field that may leave."""

    field: str  # the message's name, then the fields' down to this one
    kind: EgressClass
    rule: Rule
    why: str  # what it is and why it tells nothing of the data, for a privacy officer


@dataclass(frozen=True)
class Aside:
    """Something that leaves beside the messages; no list of fields can hold it back."""

    name: str
    kind: EgressClass | None  # None: it is not hidden, and may tell something
    why: str
