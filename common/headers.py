"""The header of a safetensors file: 8 bytes of length, JSON padded with spaces to 8 bytes.

It says of every tensor its element type, its shape and where its bytes lie, counted from the end of
the header. The format is that of https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

ELEMENT_BYTES = {"F32": 4, "BF16": 2, "I8": 1}
_ALIGNMENT = 8


@dataclass(frozen=True)
class Entry:
    """One tensor of a file."""

    name: str
    element: str  # one of ELEMENT_BYTES
    shape: tuple[int, ...]

    @property
    def byte_length(self) -> int:
        """How many bytes its values have."""
        return math.prod(self.shape) * ELEMENT_BYTES[self.element]


def written(entries: Iterable[Entry]) -> bytes:
    """Return the header of tensors that lie one behind the other; equal ones give equal bytes."""
    found: dict[str, Any] = {}
    end = 0
    for entry in entries:
        start, end = end, end + entry.byte_length
        offsets = {"data_offsets": [start, end]}
        found[entry.name] = {"dtype": entry.element, "shape": list(entry.shape), **offsets}
    text = json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def parsed(data: bytes | memoryview) -> dict[str, Entry] | None:
    """Return the tensors that a header names; None if `data` do not begin with one.

    Nothing is checked but the header's syntax: element types may be any text, shapes any lists.
    """
    try:
        (length,) = struct.unpack("<Q", bytes(data[:8]))
        entries = json.loads(bytes(data[8 : 8 + length]))
        entries.pop("__metadata__", None)
        if all(isinstance(entry["shape"], list) and entry["dtype"] for entry in entries.values()):
            return {
                name: Entry(name, str(entry["dtype"]), tuple(entry["shape"]))
                for name, entry in entries.items()
            }
    except (struct.error, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        pass
    return None
