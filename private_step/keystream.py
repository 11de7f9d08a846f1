"""Key streams of AES-256-CTR that kernels make for themselves, by OpenSSL.

`cryptography` holds Python's lock while it encrypts: threads take turns. OpenSSL does not, and
Python brings it along for `hashlib`; a kernel calls it by its address. Where there is none to be
found, `cryptography` makes the stream before the kernel runs.
"""

from __future__ import annotations

import _hashlib
import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor

from common.randomness import CIPHER_BLOCK, KEY_BYTES, ZEROS, RandomStream

CONTEXT, MADE, WRITTEN = range(3)  # the columns of `KeyStreams.table`
COLUMNS = 3
ZEROS_AT_ONCE = 1 << 14  # bytes that are encrypted in one call: they stay in the first cache
POINTER, INT = ctypes.c_void_p, ctypes.c_int
#: OpenSSL's functions: what they return and take.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "EVP_aes_256_ctr": (POINTER, []),
    "EVP_CIPHER_CTX_new": (POINTER, []),
    "EVP_CIPHER_CTX_free": (None, [POINTER]),
    "EVP_EncryptInit_ex": (INT, [POINTER, POINTER, POINTER, ctypes.c_char_p, ctypes.c_char_p]),
    "EVP_EncryptUpdate": (INT, [POINTER] * 4 + [INT]),
}


@dataclass(frozen=True)
class OpenSsl:
    """The library's functions, by name."""

    functions: dict[str, Any]

    def address(self, name: str) -> int:
        """Return where a function begins."""
        found = ctypes.cast(self.functions[name], POINTER).value
        assert found is not None  # noqa: S101 (for the type checker)
        return found

    def begin(self, key: bytes, start: int) -> int:
        """Return a new context, of which the next byte is number `start` of the key stream.

        Raises:
            RuntimeError: OpenSSL refuses.
        """
        call = self.functions
        context: int | None = call["EVP_CIPHER_CTX_new"]()
        counter = (start // CIPHER_BLOCK).to_bytes(CIPHER_BLOCK, "big")
        cipher = call["EVP_aes_256_ctr"]()
        if not context or call["EVP_EncryptInit_ex"](context, cipher, None, key, counter) != 1:
            call["EVP_CIPHER_CTX_free"](context)
            why = "OpenSSL cannot start AES-256-CTR; see `python -c 'import ssl'` for its state"
            raise RuntimeError(why)
        self.read(context, start % CIPHER_BLOCK)
        return context

    def read(self, context: int, count: int) -> bytes:
        """Return the next bytes, at most a megabyte."""
        room, written = ctypes.create_string_buffer(count + 1), ctypes.c_int(0)
        zeros = (ctypes.c_char * (count + 1)).from_buffer_copy(ZEROS[: count + 1])
        where = (context, room, ctypes.addressof(written), zeros, count)
        self.functions["EVP_EncryptUpdate"](*where)
        return room.raw[: written.value]


class KeyStreams:
    """Parts of the stream under one key, each with a place of its own to go on from.

    Attributes:
        update: the address of what makes the next bytes.
        table: shape (parts, COLUMNS), int64: what `update` is given for a part, how many bytes
            were made, and room for what it says.
    """

    def __init__(self, library: OpenSsl, key: bytes, starts: Sequence[int]) -> None:
        """Begin a part at each of these bytes of the stream."""
        self._library = library
        self.update = library.address("EVP_EncryptUpdate")
        rows = [[library.begin(key, start), 0, 0] for start in starts]
        self.table: Tensor = torch.tensor(rows, dtype=torch.int64)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Erase the key and give the memory back."""
        for context in self.table[:, CONTEXT].tolist():
            self._library.functions["EVP_CIPHER_CTX_free"](context)

    def made(self) -> int:
        """Return how many bytes were made in all."""
        return int(self.table[:, MADE].sum())


@cache
def openssl() -> OpenSsl | None:
    """Return Python's OpenSSL; None where it cannot be found or does not what it should."""
    try:
        # None, the program itself: Pythons that are one file have it in there
        loaded = ctypes.CDLL(getattr(_hashlib, "__file__", None))
        functions = {name: getattr(loaded, name) for name in FUNCTIONS}
    except (OSError, AttributeError):
        return None
    for name, (returned, taken) in FUNCTIONS.items():
        functions[name].restype, functions[name].argtypes = returned, taken
    library, key, start, count = OpenSsl(functions), bytes(range(KEY_BYTES)), 1001, 100
    stream = RandomStream(key)
    stream.skip(start)
    with KeyStreams(library, key, [start]) as found:
        same = library.read(int(found.table[0, CONTEXT]), count) == bytes(stream.read(count))
    return library if same else None
