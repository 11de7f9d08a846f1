"""A model's trainable parameters <-> `common.weights.Weights`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from common.errors import RequestError
from common.weights import Layout, NameMismatch, ShapeMismatch, Weights

if TYPE_CHECKING:
    from torch import nn


class NothingToTrain(RequestError):
    """No parameter of a model has `requires_grad`."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"{model} has no parameter with requires_grad=True: let the task's build_model leave "
            "it on for what should be trained"
        )


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that train, sorted by name; raise NothingToTrain if there are none."""
    named = sorted((name, p) for name, p in model.named_parameters() if p.requires_grad)
    if not named:
        raise NothingToTrain(type(model).__name__)
    return dict(named)


def layout_of(model: nn.Module) -> Layout:
    """Return the names and shapes of the parameters that train."""
    return Layout.of({name: tuple(p.shape) for name, p in trainable(model).items()})


def weights_of(model: nn.Module) -> Weights:
    """Return a copy of the parameters that train."""
    arrays = {name: p.detach().float().cpu().numpy() for name, p in trainable(model).items()}
    return Weights.from_arrays(arrays)


def load_weights(model: nn.Module, weights: Weights) -> None:
    """Set the parameters that train to `weights`; raise NameMismatch or ShapeMismatch."""
    parameters, arrays = trainable(model), weights.arrays()
    if parameters.keys() != arrays.keys():
        raise NameMismatch(
            missing=sorted(parameters.keys() - arrays.keys())[:5],
            unexpected=sorted(arrays.keys() - parameters.keys())[:5],
        )
    for name, parameter in parameters.items():
        if tuple(parameter.shape) != arrays[name].shape:
            raise ShapeMismatch(name, got=arrays[name].shape, need=tuple(parameter.shape))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.tensor(arrays[name]))
