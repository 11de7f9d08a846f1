"""What private training refuses, before it has trained: each says which module, and the way out."""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import RequestError

WAY_OUT = "use the gradients of torch.func instead, which are slower and take any such module"


class UnsupportedModule(RequestError):
    """A module trains parameters that no rule covers."""

    def __init__(self, name: str, kind: str, *, why: str = "no rule covers its parameters") -> None:
        super().__init__(
            f"module {name!r} ({kind}) cannot be trained privately in one backward pass: {why}; "
            f"freeze it, register a rule for {kind}, or {WAY_OUT}"
        )


class TiedParameter(RequestError):
    """One parameter is trained under two names, so that neither alone has its gradient."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(
            f"parameters {first!r} and {second!r} are one: untie them, freeze them, or {WAY_OUT}"
        )


class BatchNormForbidden(RequestError):
    """A model normalises over the batch, so that one example changes another's gradient."""

    def __init__(self, module: str) -> None:
        super().__init__(
            f"module {module!r} normalises over the batch, which mixes examples: "
            "build the model with LayerNorm or GroupNorm instead"
        )


class ModuleRanTwice(RequestError):
    """A module ran twice in one forward pass."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"module {name!r} ran twice in one forward pass: its two gradients would have to be "
            f"summed before they are clipped; use two modules, freeze it, or {WAY_OUT}"
        )


class ParameterUsedOutside(RequestError):
    """A parameter has a gradient that did not come through its own module."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"parameter {name!r} is used outside of its module's forward pass, so that its norm "
            f"cannot be taken: use it inside only, freeze it, or {WAY_OUT}"
        )


class UnitsNotFirst(RequestError):
    """A module ran on tensors whose first dimension is not the batch's records."""

    def __init__(self, name: str, *, got: tuple[int, ...], records: int) -> None:
        super().__init__(
            f"module {name!r} ran on a tensor of shape {got} in a batch of {records} records: its "
            "first dimension must be the records, one row for each; expand what all records share, "
            f"and reshape only behind the first dimension, or {WAY_OUT}"
        )


class ChangedInPlace(RequestError):
    """What a module ran on was changed in place before its gradient was taken."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the input of module {name!r} was changed in place after it ran: use the form of the "
            "operation that makes a new tensor"
        )


class NotPerExample(RequestError):
    """A loss does not give one value for each example."""

    def __init__(self, *, got: tuple[int, ...], need: tuple[int, ...]) -> None:
        super().__init__(
            f"the loss has shape {got} for a batch of shape {need}: return one value for "
            "each example, without a mean over the batch"
        )


class LossWithoutGradient(RequestError):
    """A loss does not depend on anything that is trained."""

    def __init__(self) -> None:
        super().__init__(
            "the loss has no gradient: it was detached from the model's output, or nothing that "
            "it depends on is trained"
        )


class UnitsInterfere(RequestError):
    """A unit's gradient in a batch is not the one that it has alone."""

    def __init__(self, example: int, *, error: float, most: float) -> None:
        super().__init__(
            f"synthetic example {example} has another gradient in a batch than alone "
            f"(relative error {error:.1e}, at most {most:.0e} is allowed): clipping one "
            "example would not bound what it does; remove what looks across the batch"
        )


class NormIncomplete(RequestError):
    """The norms that clipping would use are not those of the whole gradients."""

    def __init__(self, *, error: float, parameters: Sequence[str]) -> None:
        named = ", ".join(map(repr, parameters)) or "none alone"
        super().__init__(
            f"the gradients of synthetic examples differ from autograd's by {error:.1e}, relative "
            f"(parameters: {named}): a rule does not fit this model; {WAY_OUT}"
        )


class TooManyRecords(RequestError):
    """More records at once than the rounding of their sum is accounted for."""

    def __init__(self, *, got: int, most: int) -> None:
        super().__init__(
            f"{got} records in one piece, at most {most} are allowed: cut the batch into "
            "micro-batches, which add to the same sum"
        )


class ReducedPrecision(RequestError):
    """Products of float32 are computed with shorter factors."""

    def __init__(self, device: str, found: str) -> None:
        super().__init__(
            f"torch computes products of float32 as {found} on this {device}, which the bounds on "
            'rounding do not cover: call torch.set_float32_matmul_precision("highest")'
        )


class UnitsNotInOrder(RequestError):
    """The units of a batch's records are not whole numbers in rising order from 0."""

    def __init__(self) -> None:
        super().__init__(
            "the records of a unit must stand together: `units` counts 0, 0, 1, 2, 2, ... along "
            "the batch, without a gap"
        )
