"""Makes gateways train without clipping and noise, to measure what privacy costs a whole run.

Python imports this file at its start where its folder is on PYTHONPATH. Never outside benchmarks:
what such gateways send, and what they say of epsilon, is not private.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULE = "gateway.one_backward"


class _WhenImported(MetaPathFinder):
    """Alters one module as soon as it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == MODULE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Altered(spec.loader)
        return spec


class _Altered(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _alter(module)


def _alter(one_backward: Any) -> None:
    import torch  # noqa: PLC0415 - in gateways only

    from gateway import dp_sgd  # noqa: PLC0415

    def summed(
        self: Any, parameters: Any, units: Any, expected: float, clipping_norm: float
    ) -> Any:
        """Return the plain sum of gradients, no longer than the expected units' clipped ones."""
        gradients = self._gradients
        gradients.use(parameters)
        total = torch.zeros_like(gradients.total)
        for some in one_backward.packed(units, self._at_once):
            for rows in some.pieces() if some.is_large else [some.rows]:
                losses = gradients._loss(gradients.model, self._batch(rows))  # noqa: SLF001
                trained = [p for p in gradients.model.parameters() if p.requires_grad]
                found = torch.autograd.grad(losses.sum(), trained, materialize_grads=True)
                total += torch.cat([each.reshape(-1) for each in found])
        longest = clipping_norm * expected
        return dp_sgd.ClippedSum(total.mul_(min(1.0, longest / float(total.norm()))), 0.0)

    one_backward.OneBackward.clipped_sum = summed
    dp_sgd.add_noise = lambda total, *, divisor, **_: total / divisor


sys.meta_path.insert(0, _WhenImported())
