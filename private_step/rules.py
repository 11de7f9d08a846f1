"""Which module is trained by which rule; users add their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from private_step.affine import book_per_unit
from private_step.tape import Tape

Run: TypeAlias = Callable[..., Any]  # (module, tape, *inputs) -> what the module gives
WhyNot: TypeAlias = Callable[[Any], str | None]  # (module) -> why it cannot be trained, or None
PerRecord: TypeAlias = Callable[[Any, tuple[Any, ...], Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Rule:
    """How modules of one type run and book their gradients."""

    run: Run
    why_not: WhyNot
    covers_children: bool  # it also books the parameters of the modules inside


_RULES: dict[type[nn.Module], Rule] = {}


def rule_of(module: nn.Module) -> Rule | None:
    """Return the rule for exactly this type: a subclass may compute something else."""
    return _RULES.get(type(module))


def rule_for(
    kind: type[nn.Module], *, why_not: WhyNot = lambda _: None, covers_children: bool = False
) -> Callable[[Run], Run]:
    """Make the decorated function the rule for modules of type `kind`."""

    def register(run: Run) -> Run:
        _RULES[kind] = Rule(run, why_not, covers_children)
        return run

    return register


def per_record_rule(kind: type[nn.Module]) -> Callable[[PerRecord], PerRecord]:
    """Make the decorated function give the gradients of every module of type `kind`.

    It takes the module, its inputs and the gradient of its one output, whose first dimension is
    the records, and returns each trained parameter's gradient for each record, by name, shape
    (records, *parameter). They are held at once: for parameters that are few.
    """

    def register(gradients: PerRecord) -> PerRecord:
        def run(module: nn.Module, tape: Tape, *inputs: Any) -> Tensor:
            detached = {name: p.detach() for name, p in module.named_parameters()}
            output = _as_it_is(module, detached, inputs)
            of_each = {
                name: total
                for name, p in module.named_parameters()
                if (total := tape.sum_of(p)) is not None
            }

            def observe(gradient: Tensor) -> None:
                found = gradients(module, _detached(inputs), gradient)
                for name, total in of_each.items():
                    book_per_record(tape, found[name], total)

            first = next(x for x in inputs if isinstance(x, Tensor))
            return tape.watch(output, first, observe)

        rule_for(kind, covers_children=True)(run)
        return gradients

    return register


def by_vmap(module: nn.Module, inputs: tuple[Any, ...], gradient: Tensor) -> dict[str, Tensor]:
    """Return each record's gradients by `torch.func.vmap`: a per-record rule for any small module.

    Every input has one row for each record.
    """
    trained = {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}

    def of_one(one: tuple[Any, ...], above: Tensor) -> dict[str, Tensor]:
        def run(parameters: dict[str, Tensor]) -> Tensor:
            output: Tensor = functional_call(module, parameters, tuple(x[None] for x in one))
            return output[0]

        back = vjp(run, trained)[1]
        found: dict[str, Tensor] = back(above)[0]
        return found

    with torch.enable_grad():
        found: dict[str, Tensor] = vmap(of_one)(inputs, gradient)
    return {name: value.detach() for name, value in found.items()}


def book_per_record(tape: Tape, of_record: Tensor, total: Tensor) -> None:
    """Book one parameter's gradients, shape (records, *parameter), held as they are."""
    book_per_unit(tape, tape.units.summed(of_record), total)


def _as_it_is(module: nn.Module, parameters: dict[str, Tensor], inputs: tuple[Any, ...]) -> Tensor:
    """Run a module's own forward pass, in which it runs by its rule, with other parameters."""
    by_rule = vars(module).pop("forward")
    try:
        output: Tensor = functional_call(module, parameters, inputs)
        return output
    finally:
        vars(module)["forward"] = by_rule


def _detached(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.detach() if isinstance(x, Tensor) else x for x in inputs)
