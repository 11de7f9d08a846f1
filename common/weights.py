"""Weights as one flat float32 vector, and their canonical safetensors bytes.

Tensors lie in the order of their names, without metadata, so that equal weights have equal bytes
and a digest can name them. `common.headers` has the format.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, Self

import numpy as np
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, model_validator

from common import headers
from common.errors import RequestError
from common.ids import WeightsId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FLOAT32_BYTES = 4
UNNAMED = ""  # what no tensor of a layout is called
MAX_PARAMETERS = 1 << 33
_BLOCK = 1 << 16  # values that are looked at together, in the processor's cache


class MalformedWeights(RequestError):
    """Bytes that are not canonical weights of the layout that is needed."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}: check that the sender was built for this run's model")


class ShapeMismatch(RequestError):
    """A tensor does not have the shape that the run's model needs."""

    def __init__(self, tensor: str, *, got: tuple[int, ...], need: tuple[int, ...]) -> None:
        super().__init__(
            f"tensor {tensor!r} has shape {got}, the run's model needs {need}: "
            "check that the sender was built for this model"
        )


class NameMismatch(RequestError):
    """The tensors are not those of the run's model."""

    def __init__(self, *, missing: list[str], unexpected: list[str]) -> None:
        super().__init__(
            f"tensors missing: {missing}, not of the run's model: {unexpected}: "
            "check that the sender was built for this model"
        )


class ElementTypeMismatch(RequestError):
    """A tensor's elements are not of the type that was agreed."""

    def __init__(self, tensor: str, *, got: str, need: str) -> None:
        super().__init__(
            f"tensor {tensor!r} has element type {got}, {need} was agreed: check the plan's "
            "wire_format, and that the sender's software knows it"
        )


class NotFinite(RequestError):
    """A value is NaN or infinite."""

    def __init__(self, tensor: str) -> None:
        super().__init__(
            f"tensor {tensor!r} holds a value that is NaN or infinite: nothing of it was counted; "
            "lower the learning rate or check the data"
        )


class TensorSpec(BaseModel):
    """A tensor's name and shape; its elements are float32."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=500)]
    shape: tuple[Annotated[int, Field(ge=0, lt=MAX_PARAMETERS)], ...]

    @property
    def size(self) -> int:
        """How many values it holds."""
        return math.prod(self.shape)


class Layout(BaseModel):
    """The tensors of a model, in the order of their names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    element: ClassVar[str] = "F32"

    tensors: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=100_000)]

    @model_validator(mode="after")
    def _is_canonical(self) -> Self:
        names = [tensor.name for tensor in self.tensors]
        if sorted(set(names)) != names:
            msg = f"tensor names must be sorted and distinct, got {names}"
            raise ValueError(msg)
        if not 0 < self.size <= MAX_PARAMETERS:
            msg = f"{self.size} values in all, must be between 1 and {MAX_PARAMETERS}"
            raise ValueError(msg)
        return self

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """Return the layout of tensors with these names and shapes."""
        specs = (TensorSpec(name=name, shape=shape) for name, shape in sorted(shapes.items()))
        return cls(tensors=tuple(specs))

    @property
    def size(self) -> int:
        """How many values all tensors hold."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def header(self) -> bytes:
        """What precedes the values in the canonical bytes."""
        return headers.written(
            headers.Entry(tensor.name, self.element, tensor.shape) for tensor in self.tensors
        )

    @property
    def byte_length(self) -> int:
        """Length of the canonical bytes."""
        return len(self.header) + self.size * FLOAT32_BYTES

    def tensor_at(self, position: int) -> str:
        """Return the name of the tensor that holds the value at `position` of the flat vector."""
        end = 0
        for tensor in self.tensors:
            end += tensor.size
            if position < end:
                return tensor.name
        msg = f"position {position} is past the last of {self.size} values"
        raise IndexError(msg)


class Weights:
    """Named float32 arrays, kept as one flat vector in the order of their names."""

    def __init__(self, layout: Layout, values: NDArray[np.float32]) -> None:
        """Keep `values`, shape (layout.size,), float32, without a copy."""
        if values.shape != (layout.size,) or values.dtype != np.float32:
            msg = f"got {values.dtype}{values.shape}, need float32 of shape ({layout.size},)"
            raise MalformedWeights(msg)
        self.layout = layout
        self.values = values

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Self:
        """Return the weights that hold copies of `arrays`."""
        layout = Layout.of({name: array.shape for name, array in arrays.items()})
        flat = [np.ravel(arrays[tensor.name]) for tensor in layout.tensors]
        return cls(layout, np.concatenate(flat).astype(np.float32, copy=False))

    @classmethod
    def from_bytes(
        cls, data: bytes | memoryview, layout: Layout, *, digest: WeightsId | None = None
    ) -> Self:
        """Return the weights in `data`, without a copy, after checking all of it.

        Args:
            data: what nobody changes any more.
            layout: what it must be of.
            digest: of `data`, where whoever received it has checked it.

        Raises:
            MalformedWeights, NameMismatch, ShapeMismatch, ElementTypeMismatch: the bytes are not
                the canonical ones of `layout`.
            NotFinite: a value is NaN or infinite.
        """
        check_header(data, layout)
        values = np.frombuffer(data, dtype="<f4", offset=len(layout.header))
        check_finite(values, layout)
        weights = cls(layout, values)
        weights.data = memoryview(data)
        if digest is not None:
            weights.digest = digest
        return weights

    @cached_property
    def data(self) -> memoryview:
        """The canonical safetensors bytes; without a copy where the values came in them."""
        return memoryview(b"".join((self.layout.header, self.values.data.cast("B"))))

    @cached_property
    def digest(self) -> WeightsId:
        """BLAKE3 of the canonical bytes, in hexadecimal; taken when it is first asked for."""
        hasher = blake3(self.layout.header)
        hasher.update(self.values.data.cast("B"))
        return WeightsId(hasher.hexdigest())

    def to_bytes(self) -> bytes:
        """Return a copy of the canonical safetensors bytes."""
        return bytes(self.data)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return views of the tensors by name, in their shapes."""
        views, start = {}, 0
        for tensor in self.layout.tensors:
            views[tensor.name] = self.values[start : start + tensor.size].reshape(tensor.shape)
            start += tensor.size
        return views


class Form(Protocol):
    """What bytes must be that begin with a header."""

    @property
    def element(self) -> str:
        """Of which type every tensor's elements are, by its name in a header."""

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The tensors, in the order of their names."""

    @property
    def header(self) -> bytes:
        """What precedes the values."""

    @property
    def byte_length(self) -> int:
        """Length of all, with the header."""


def check_finite(values: NDArray[np.float32], layout: Layout, begin: int = 0) -> None:
    """Raise NotFinite, naming the tensor, unless all are finite.

    They are the layout's values from the place `begin` on.
    """
    for start in range(0, values.size, _BLOCK):
        finite = np.isfinite(values[start : start + _BLOCK])
        if not finite.all():
            raise NotFinite(layout.tensor_at(begin + start + int(np.argmin(finite))))


def check_header(data: bytes | memoryview, form: Form, *, length: int | None = None) -> None:
    """Raise as `Weights.from_bytes` unless `data` has the form's header and length.

    Of long data the beginning is enough, with the `length` of the whole.
    """
    length = len(data) if length is None else length
    if bytes(data[: len(form.header)]) != form.header:
        _explain(data, form)
    if length != form.byte_length:
        msg = f"{length} bytes, the run's model needs {form.byte_length}"
        raise MalformedWeights(msg)


def _explain(data: bytes | memoryview, form: Form) -> None:
    """Raise the error that says best how the header differs from the form's."""
    entries = headers.parsed(data)
    if entries is None:
        raise MalformedWeights("the bytes do not begin with a safetensors header")
    names, need = set(entries) - {UNNAMED}, {tensor.name: tensor.shape for tensor in form.tensors}
    if names != set(need):
        raise NameMismatch(
            missing=sorted(set(need) - names)[:5], unexpected=sorted(names - set(need))[:5]
        )
    for name in sorted(names):
        entry = entries[name]
        if entry.element != form.element:
            raise ElementTypeMismatch(name, got=entry.element[:20], need=form.element)
        if entry.shape != need[name]:
            raise ShapeMismatch(name, got=entry.shape, need=need[name])
    raise MalformedWeights("the header is not in canonical form (sorted names, no metadata)")
