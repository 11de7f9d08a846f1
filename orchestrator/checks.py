"""What is checked of an update: piece by piece as it comes, then as a whole.

A piece is looked at while it lies in the processor's cache. What was found wrong is said at the
end, in one order whatever came first: length, digest, names, shapes, element type, values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from common.transfer import DigestMismatch, LengthMismatch
from common.weights import FLOAT32_BYTES, check_finite, check_header
from orchestrator.aggregation import LIMIT, check_range

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from common.protocol import Body
    from common.weights import Layout

ENOUGH_TO_EXPLAIN = 1 << 20  # bytes of a foreign header, beside twice those of the right one
_SIZE_BITS = np.uint32(0x7FFFFFFF)  # of a float32, without its sign
_LIMIT_BITS = np.float32(LIMIT).view(np.uint32)  # floats of one sign are ordered as their bits are


class RunningCheck:
    """Sees a body's bytes once, in order."""

    def __init__(self, body: Body, layout: Layout) -> None:
        """Expect the canonical bytes of `layout` under the digest of `body`."""
        self._body = body
        self._layout = layout
        self._hasher = blake3()
        self._seen = 0
        self._is_bad = False  # some value is
        self._rest = b""  # of a value that a piece broke off

    def see(self, piece: bytes | memoryview) -> None:
        """Look at the bytes that come next."""
        self._hasher.update(piece)
        values = self._values(piece)
        self._seen += len(piece)
        self._is_bad = self._is_bad or not _fit(values)

    def finish(self, read: Callable[[int, int], memoryview]) -> None:
        """Raise what is wrong with the whole; `read` gives (offset, length) of it again.

        Raises:
            LengthMismatch, DigestMismatch: it is not what was declared.
            MalformedWeights, NameMismatch, ShapeMismatch, ElementTypeMismatch: it is not of the
                layout.
            NotFinite, OutOfRange: a value cannot be added.
        """
        if self._seen != self._body.byte_length:
            raise LengthMismatch(got=self._seen, need=self._body.byte_length)
        got = self._hasher.hexdigest()
        if got != self._body.digest:
            raise DigestMismatch(got=got, need=self._body.digest)
        header = len(self._layout.header)
        beginning = read(0, min(self._seen, 2 * header + ENOUGH_TO_EXPLAIN))
        check_header(beginning, self._layout, length=self._seen)
        self._check_values(read, header)

    def _values(self, piece: bytes | memoryview) -> NDArray[np.uint32]:
        """Return the bits of the values that are whole now."""
        data = memoryview(piece)[max(0, len(self._layout.header) - self._seen) :]
        if self._rest:
            data = memoryview(b"".join((self._rest, data)))
        whole = len(data) - len(data) % FLOAT32_BYTES
        self._rest = bytes(data[whole:])
        return np.frombuffer(data[:whole], dtype="<u4")

    def _check_values(self, read: Callable[[int, int], memoryview], header: int) -> None:
        if not self._is_bad:
            return
        values = np.frombuffer(read(header, self._seen - header), dtype="<f4")
        check_finite(values, self._layout)
        check_range(values, self._layout)


def _fit(bits: NDArray[np.uint32]) -> bool:
    """Whether all values, given as their bits, are finite and below LIMIT in size."""
    return bool((bits & _SIZE_BITS).max(initial=0) < _LIMIT_BITS)
