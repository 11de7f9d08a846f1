"""Where figures go: to TensorBoard's event files, to an MLflow server or database."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Protocol

from common.errors import UnavailableError
from common.extras import ExtraMissing
from common.protocol import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cli.figures import Figures, Point

SUFFIX = ".fedgate"  # of event files that are ours
MOST_METRICS, MOST_PARAMS = 1000, 100  # that MLflow takes in one call
TAG = "fedgate."
ENDS: dict[str, str] = {  # of run states, as MLflow calls them
    RunState.COMPLETED: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.CANCELLED: "KILLED",
}


class FigureStore(Protocol):
    """Takes a run's figures, each of them once."""

    def put(self, figures: Figures, at: float) -> int:
        """Take what is new at a time, in seconds of the epoch; return how many points."""
        ...

    def close(self) -> None:
        """Have everything written."""
        ...


class StoreUnreachable(UnavailableError):
    """An MLflow server or database does not take figures."""

    def __init__(self, uri: str, error: Exception) -> None:
        said = " ".join(str(error).split())[:300]
        super().__init__(
            f"MLflow at {uri} takes no figures ({said}): see that it runs and may be written to, "
            "for instance sqlite:///mlflow.db or http://127.0.0.1:5000"
        )


class TensorBoardFolder:
    """A folder of event files for one run; what an earlier export left of it is replaced."""

    def __init__(self, folder: Path) -> None:
        """Begin a file.

        Raises:
            ExtraMissing: TensorBoard is not installed.
        """
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2  # noqa: PLC0415
            from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # noqa: PLC0415
            from tensorboard.plugins.text.metadata import create_summary_metadata  # noqa: PLC0415
            from tensorboard.summary.writer import event_file_writer  # noqa: PLC0415
        except ImportError as error:
            raise ExtraMissing("--tensorboard", "tensorboard", error) from error
        for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
            old.unlink()
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._hparams, self._of_text = hparams_pb, create_summary_metadata
        self._file = event_file_writer.EventFileWriter(str(folder), filename_suffix=SUFFIX)
        self._known, self._tags = set[tuple[str, int]](), dict[str, str]()

    def put(self, figures: Figures, at: float) -> int:
        """Write what is new."""
        if not self._tags:
            self._write(self._hparams(plain(figures.settings), trial_id=figures.tags["run"]), 0, at)
        changed = {name: v for name, v in figures.tags.items() if self._tags.get(name) != v}
        step = max((each.round for each in figures.points), default=0)
        for name, value in changed.items():
            self._write(self._summary(value=[self._text(name, value)]), step, at)
        self._tags |= changed
        new = fresh(figures.points, self._known)
        for point in new:
            value = self._summary.Value(tag=point.name, simple_value=point.value)
            self._write(self._summary(value=[value]), point.round, at)
        self._file.flush()
        return len(new)

    def _text(self, name: str, text: str) -> Any:
        value = self._summary.Value(tag=name, metadata=self._of_text(name, ""))
        value.tensor.dtype = 7  # DT_STRING
        value.tensor.string_val.append(text.encode())
        value.tensor.tensor_shape.dim.add(size=1)
        return value

    def _write(self, summary: Any, step: int, at: float) -> None:
        self._file.add_event(self._event(step=step, wall_time=at, summary=summary))

    def close(self) -> None:
        """End the file."""
        self._file.close()


class MlflowRun:
    """A run at an MLflow server or database: of the run's name, in the federation's experiment.

    What is there already is kept, and not written again.
    """

    def __init__(self, uri: str, federation: str, run: str) -> None:
        """Find the run, or make it.

        Raises:
            ExtraMissing: MLflow is not installed.
            StoreUnreachable: nothing takes figures there.
        """
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # else it tells its makers of each use
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a person waits
        try:
            from mlflow import MlflowClient, entities, exceptions  # noqa: PLC0415
        except ImportError as error:
            raise ExtraMissing("--mlflow", "mlflow", error) from error
        self._uri, self._entities = uri, entities
        self._failures = (exceptions.MlflowException, OSError, ImportError)
        try:
            self._client = client = MlflowClient(tracking_uri=uri)
            experiment = client.get_experiment_by_name(federation)
            place = experiment.experiment_id if experiment else client.create_experiment(federation)
            wanted = f"tags.`{TAG}run` = '{run}'"
            found = client.search_runs([place], wanted, max_results=1)
            self._run = found[0] if found else client.create_run(place, run_name=run)
            self.run_id: str = self._run.info.run_id
            self._known = {
                (name, metric.step)
                for name in self._run.data.metrics
                for metric in client.get_metric_history(self.run_id, name)
            }
        except self._failures as error:
            raise StoreUnreachable(uri, error) from error
        self._params, self._state = dict(self._run.data.params), ""

    def put(self, figures: Figures, at: float) -> int:
        """Write what is new."""
        new, of = fresh(figures.points, self._known), self._entities
        metrics = [of.Metric(each.name, each.value, int(at * 1000), each.round) for each in new]
        tags = [of.RunTag(f"{TAG}{name}", value) for name, value in figures.tags.items()]
        params = {n: str(v) for n, v in plain(figures.settings).items() if n not in self._params}
        try:
            self._client.log_batch(self.run_id, tags=tags)
            for some in _chunks([of.Param(*each) for each in params.items()], MOST_PARAMS):
                self._client.log_batch(self.run_id, params=some)
            for some in _chunks(metrics, MOST_METRICS):
                self._client.log_batch(self.run_id, metrics=some)
        except self._failures as error:
            raise StoreUnreachable(self._uri, error) from error
        self._params |= params
        self._state = figures.tags["state"]
        return len(new)

    def close(self) -> None:
        """Mark the run as ended, if it has."""
        if self._state not in ENDS:
            return
        try:
            self._client.set_terminated(self.run_id, ENDS[self._state])
        except self._failures as error:
            raise StoreUnreachable(self._uri, error) from error


def fresh(points: Iterable[Point], known: set[tuple[str, int]]) -> list[Point]:
    """Return the points that are not known yet; from then on they are."""
    new = [point for point in points if (point.name, point.round) not in known]
    known.update((point.name, point.round) for point in new)
    return new


def plain(settings: Mapping[str, Any]) -> dict[str, str | float | bool]:
    """Return settings as both stores take them: what is no number, text or yes and no, as JSON."""
    return {
        name: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
        for name, value in settings.items()
    }


def _chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
