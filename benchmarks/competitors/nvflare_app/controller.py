"""The server: federated averaging, and how long each round of it took."""

from __future__ import annotations

import json
import time  # noqa: TID251 - it measures
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.workflows.fedavg import FedAvg


class TimedFedAvg(FedAvg):  # type: ignore[misc]
    """Federated averaging that notes when a round begins and when its average is there."""

    def __init__(self, folder: str, num_clients: int, num_rounds: int) -> None:
        """Read the tensors' shapes in `folder` and write there what was found."""
        super().__init__(num_clients=num_clients, num_rounds=num_rounds, persistor_id="")
        self.folder = folder

    def run(self) -> None:
        """Run all rounds; write how long each took and how much the model's weights grew."""
        folder, generator = Path(self.folder), np.random.default_rng(1)
        shapes = json.loads((folder / "shapes.json").read_text())
        self._initial = {
            name: generator.standard_normal(shape, dtype=np.float32)
            for name, shape in shapes.items()
        }
        self._seconds: list[float] = []
        copied = {name: array.copy() for name, array in self._initial.items()}
        self.model = FLModel(params=copied, params_type=ParamsType.FULL)
        super().run()
        grown = [
            float(np.mean(self._last.params[name] - before))
            for name, before in self._initial.items()
        ]
        found = {"seconds": self._seconds, "grown": [min(grown), max(grown)]}
        (folder / "found.tmp").write_text(json.dumps(found))
        (folder / "found.tmp").rename(folder / "found.json")

    def send_model(self, *arguments: Any, **more: Any) -> None:
        """Note the time and begin a round."""
        self._begun = time.perf_counter()
        super().send_model(*arguments, **more)

    def update_model(self, *arguments: Any, **more: Any) -> Any:
        """Take the average and note the time."""
        self._last = super().update_model(*arguments, **more)
        self._seconds.append(time.perf_counter() - self._begun)
        return self._last

    def save_model(self, _model: Any) -> None:
        """Keep nothing: the model's file is not measured."""
