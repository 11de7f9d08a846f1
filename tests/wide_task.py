"""The tiny task with a model of as many MiB as is asked for: to send it takes its time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from tests.tiny_task import WIDTH, TinyTask

VALUES_IN_A_MIB = (1 << 20) // 4


class WideTask(TinyTask):
    """Three layers on `Points`, nearly all of it in the middle one."""

    name = "wide"

    def __init__(self, mib: int) -> None:
        self._mib = mib

    def build_model(self, labels: Sequence[str]) -> nn.Module:
        wide = math.isqrt(self._mib * VALUES_IN_A_MIB)
        layers = [nn.Linear(WIDTH, wide), nn.Linear(wide, wide), nn.Linear(wide, len(labels))]
        model = nn.Sequential(*layers)
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        return model
