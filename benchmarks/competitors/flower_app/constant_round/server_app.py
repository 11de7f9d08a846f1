"""The server: federated averaging, and how long each round of it took."""

from __future__ import annotations

import json
import time  # noqa: TID251 - it measures
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):  # type: ignore[misc]
    """Federated averaging that notes when a round begins and when its average is there."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seconds: list[float] = []

    def configure_train(self, *arguments: Any, **more: Any) -> Any:
        """Note the time and begin a round."""
        self._begun = time.perf_counter()
        return super().configure_train(*arguments, **more)

    def aggregate_train(self, *arguments: Any, **more: Any) -> Any:
        """Average and note the time."""
        averaged = super().aggregate_train(*arguments, **more)
        self.seconds.append(time.perf_counter() - self._begun)
        return averaged


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Run all rounds; write how long each took and what a weight of the model has become."""
    asked = context.run_config
    folder, gateways = Path(asked["folder"]), asked["gateways"]
    shapes = json.loads((folder / "shapes.json").read_text())
    generator = np.random.default_rng(1)
    initial = {
        name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
    }
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=gateways, min_available_nodes=gateways)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in initial.items()}),
        num_rounds=asked["rounds"],
    )
    grown = [
        float(np.mean(result.arrays[name].numpy() - before)) for name, before in initial.items()
    ]
    found = {"seconds": strategy.seconds, "grown": [min(grown), max(grown)]}
    (folder / "found.tmp").write_text(json.dumps(found))
    (folder / "found.tmp").rename(folder / "found.json")
