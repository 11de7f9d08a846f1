"""An update's values for the sum, decoded block by block from the bytes that came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from common.wire_formats import WireFormat, decode_pieces, pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from common.update_form import UpdateForm


class Source(Protocol):
    """The bytes behind an update's header, wherever they lie."""

    def __getitem__(self, place: slice, /) -> NDArray[np.uint8]:
        """Return some of them."""


class Decoded:
    """The values of a checked update; only those that are asked for are in memory as float32.

    Several threads may read at once.
    """

    def __init__(self, source: Source, form: UpdateForm) -> None:
        """Decode what `source` gives, which is of `form`."""
        self._source = source
        self._form = form
        self.size = form.size

    def read(self, block: slice) -> NDArray[np.float32]:
        """Return some values, from a multiple of int8's blocks on; raise what `source` raises."""
        stop, wire_format = min(block.stop, self.size), self._form.wire_format
        places = pieces(wire_format, self.size, block.start, stop)
        data = [self._source[place] for place in places]
        if wire_format is WireFormat.FLOAT32:
            return data[0].view("<f4")  # they lie there as they are
        values = np.empty(stop - block.start, dtype=np.float32)
        decode_pieces(data, wire_format, values)
        return values
