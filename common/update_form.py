"""What the bytes of an update are: a safetensors header, then the values in the plan's format.

The header names the format by its element types, so that no format can be taken for another:

==========  =============================================================================
float32     F32: the canonical bytes of weights, see `common.weights`
bfloat16    BF16
int8        I8; before them a tensor without a name, of F32, with the scale of every 256
            values. They are counted through all tensors, in the order of their names
==========  =============================================================================

An update is kept, named by its digest, charged and sent as these bytes, and never written twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from blake3 import blake3

from common.headers import Entry, written
from common.ids import WeightsId
from common.int8_blocks import SCALED
from common.weights import UNNAMED, Layout, TensorSpec, check_finite, check_header
from common.wire_formats import (
    DoesNotFit,
    WireFormat,
    check_encoded,
    decode,
    encode,
    encoded_length,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.int8_blocks import Float32
    from common.randomness import RandomStream
    from common.wire_formats import Bytes

ELEMENTS = {WireFormat.FLOAT32: "F32", WireFormat.BFLOAT16: "BF16", WireFormat.INT8: "I8"}


@dataclass(frozen=True)
class UpdateForm:
    """The tensors of a layout, written in a format."""

    layout: Layout
    wire_format: WireFormat = WireFormat.FLOAT32

    @property
    def element(self) -> str:
        """Of which type the tensors' elements are, by its name in a header."""
        return ELEMENTS[self.wire_format]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The tensors, in the order of their names."""
        return self.layout.tensors

    @cached_property
    def size(self) -> int:
        """How many values all tensors hold."""
        return self.layout.size

    @cached_property
    def header(self) -> bytes:
        """What precedes the values."""
        return written(self._entries())

    @property
    def byte_length(self) -> int:
        """Length of an update: the same for all."""
        return len(self.header) + encoded_length(self.wire_format, self.size)

    def _entries(self) -> Iterator[Entry]:
        if self.wire_format is WireFormat.INT8:
            yield Entry(UNNAMED, "F32", (-(-self.size // SCALED),))
        for tensor in self.tensors:
            yield Entry(tensor.name, self.element, tensor.shape)


class Update:
    """A difference from the global model, as the bytes that are kept, named and sent."""

    def __init__(self, form: UpdateForm, data: memoryview) -> None:
        """Keep `data`, which are of `form` and which nobody changes any more."""
        self.form = form
        self.data = data

    @classmethod
    def with_room(cls, form: UpdateForm) -> Self:
        """Return an update whose values are still to be written, into `encoded`."""
        room = np.empty(form.byte_length, dtype=np.uint8)
        begin = len(form.header)
        room[:begin] = np.frombuffer(form.header, dtype=np.uint8)
        return cls(form, room.data)

    @classmethod
    def of(cls, form: UpdateForm, values: Float32, rounding: RandomStream) -> Self:
        """Return the update that holds `values`, rounded as the form's format has it.

        Args:
            form: what to write.
            values: shape (form.size,).
            rounding: see `common.wire_formats.encode`; what is left of it is for nobody.

        Raises:
            NotFinite: a value is NaN or infinite.
            DoesNotFit: a value is too large for the format.
        """
        update = cls.with_room(form)
        try:
            encode(values, form.wire_format, rounding, out=update.encoded)
        except DoesNotFit:
            check_finite(values, form.layout)
            raise
        return update

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, form: UpdateForm) -> Self:
        """Return the update in `data`, without a copy, after checking all of it.

        Raises:
            MalformedWeights, NameMismatch, ShapeMismatch, ElementTypeMismatch: they are not of
                `form`.
            MalformedEncoding: they hold values that the format never has.
        """
        check_header(data, form)
        update = cls(form, memoryview(data))
        check_encoded(update.encoded, form.wire_format, form.size)
        return update

    @cached_property
    def digest(self) -> WeightsId:
        """BLAKE3 of the bytes, in hexadecimal; taken when it is first asked for."""
        return WeightsId(blake3(self.data).hexdigest())

    @property
    def encoded(self) -> Bytes:
        """The bytes behind the header."""
        return np.frombuffer(self.data, dtype=np.uint8, offset=len(self.form.header))

    @property
    def values(self) -> Float32:
        """What the bytes stand for: what is averaged, shape (form.size,)."""
        return decode(self.encoded, self.form.wire_format, self.form.size)

    def to_bytes(self) -> bytes:
        """Return a copy of the bytes."""
        return bytes(self.data)
