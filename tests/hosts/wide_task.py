"""The tiny task with a model of a chosen size, so that its transfers take a while."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from tasks.task import digest_files
from tests.tiny_task import WIDTH, TinyTask

HIDDEN = 230_000
BYTES = 4 * (HIDDEN * (WIDTH + 1) + 2 * (HIDDEN + 1))  # of the model: 8 MiB


class WideTask(TinyTask):
    """A network of one wide layer on the same points."""

    name = "wide"

    def digest(self) -> str:
        return digest_files([Path(__file__)])

    def build_model(self, labels: Sequence[str]) -> nn.Module:
        model = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, len(labels)))
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        return model


TASK = WideTask()
