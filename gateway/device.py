"""Which device a gateway trains on: its own choice, of which nothing leaves it."""

from __future__ import annotations

import torch

from common.errors import RequestError
from gateway.choices import Device


class NoGpu(RequestError):
    """The settings ask for a GPU, and torch has none to offer."""

    field = "device"

    def __init__(self) -> None:
        super().__init__(
            f'device = "cuda" in gateway.toml, but torch {torch.__version__} can use no GPU here: '
            "it needs a build of torch for CUDA, a driver that fits it and a GPU that is free; "
            'install these, or set device = "auto" or "cpu"'
        )


def device_for(choice: Device, *, gpu: bool) -> torch.device:
    """Return where to train, given whether there is a GPU to use.

    Raises:
        NoGpu: it was asked for and is not there.
    """
    if choice is Device.CUDA and not gpu:
        raise NoGpu
    return torch.device("cuda" if gpu and choice is not Device.CPU else "cpu")


def device_here(choice: Device) -> torch.device:
    """Return where to train on this machine; raise NoGpu as `device_for` does."""
    return device_for(choice, gpu=choice is not Device.CPU and is_usable("cuda"))


def is_usable(device: str) -> bool:
    """Whether torch computes there: a device may be seen and yet be too old, full or taken."""
    try:
        return bool(torch.ones(2, device=device).sum() == 2)  # noqa: PLR2004 (two ones)
    except (RuntimeError, AssertionError):  # as torch says that it was built without one
        return False
