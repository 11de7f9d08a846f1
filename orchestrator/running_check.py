"""What is checked of an update: piece by piece as it comes, then as a whole.

A piece is looked at while it lies in the processor's cache. What was found wrong is said at the
end, in one order whatever came first: length, digest, names, shapes, element type, values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from common.transfer import check_whole
from common.weights import check_header
from orchestrator.running_values import RunningValues, explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.protocol import Body
    from common.update_form import UpdateForm

ENOUGH_TO_EXPLAIN = 1 << 20  # bytes of a foreign header, beside twice those of the right one


class RunningCheck:
    """Sees a body's bytes once, in order."""

    def __init__(self, body: Body, form: UpdateForm) -> None:
        """Expect bytes of `form` under the digest of `body`."""
        self._body = body
        self._form = form
        self._hasher = blake3()
        self._seen = 0
        self._values = RunningValues(form)

    def see(self, piece: bytes | memoryview) -> None:
        """Look at the bytes that come next."""
        self._hasher.update(piece)
        self._values.see(memoryview(piece)[max(0, len(self._form.header) - self._seen) :])
        self._seen += len(piece)

    def finish(self, read: Callable[[int, int], memoryview]) -> float:
        """Return the L2 norm of the whole; `read` gives (offset, length) of it again.

        Raises:
            LengthMismatch, DigestMismatch: it is not what was declared.
            MalformedWeights, NameMismatch, ShapeMismatch, ElementTypeMismatch: it is not of the
                form.
            NotFinite, OutOfRange, MalformedEncoding: a value cannot be added.
        """
        check_whole(self._body, received=self._seen, digest=self._hasher.hexdigest())
        header = len(self._form.header)
        beginning = read(0, min(self._seen, 2 * header + ENOUGH_TO_EXPLAIN))
        check_header(beginning, self._form, length=self._seen)
        norm = self._values.norm()
        if norm is None:
            data = np.frombuffer(read(header, self._seen - header), dtype=np.uint8)
            explain(data, self._form)
        return norm
