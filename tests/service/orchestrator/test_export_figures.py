"""`fedgate run export-figures`: what the stores' own readers find of a real run."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from cli.figure_stores import StoreUnreachable
from cli.figures_command import NowhereToGo
from cli.main import app
from common.accounting import epsilon_pld, round_event
from common.extras import ExtraMissing
from common.protocol import ScoreSet
from tests.fakes import HYPERPARAMETERS, plan_of

ROUNDS = 3
pytestmark = pytest.mark.filterwarnings("default")  # other people's imports


async def exported(config: str, *words: str):
    """Return what the command prints as JSON."""
    line = ["run", "export-figures", "r", *words, "--config", config, "--format", "json"]
    done = await asyncio.to_thread(CliRunner().invoke, app, line)
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


async def completed(federation):
    """Run three rounds; two of them and the model are scored."""
    operator = await federation.start(plan_of("a"))
    (a,) = await federation.gateways("a")
    await a.follow("r")
    return await scored(operator)


async def scored(operator):
    status, _ = await operator.run("r")
    for number, split, f1 in ((1, "dev", 0.5), (3, "dev", 0.75), (3, "test", 0.625)):
        scores = ScoreSet(number, split, status.weights, f1, 0.5, 0.5, 8)
        await operator.record_scores("r", scores)
    return status


def scalars_in(folder) -> dict[str, dict[int, float]]:
    """Return what TensorBoard itself reads in a folder: by name and round."""
    found = EventAccumulator(str(folder))
    found.Reload()
    names = found.Tags()["scalars"]
    return {name: {each.step: each.value for each in found.Scalars(name)} for name in names}


def texts_in(folder) -> dict[str, str]:
    found = EventAccumulator(str(folder))
    found.Reload()
    names = [name for name in found.Tags()["tensors"] if not name.startswith("_")]
    return {name: found.Tensors(name)[-1].tensor_proto.string_val[0].decode() for name in names}


async def test_tensorboard_reads_each_rounds_figures_once_however_often_they_are_exported(
    serving, tmp_path
):
    federation, config = serving
    status = await completed(federation)
    for _ in range(2):
        said = await exported(config, "--tensorboard", str(tmp_path / "figures"))
    assert (said["rounds"], said["mlflow"]) == (ROUNDS, None)
    folder = tmp_path / "figures" / "r"
    assert said["tensorboard"] == str(folder)
    assert len(list(folder.iterdir())) == 1
    found = scalars_in(folder)
    assert found["f1/dev"] == {1: 0.5, 3: 0.75}
    assert found["f1/test"] == {3: 0.625}
    assert found["updates"] == {1: 1, 2: 1, 3: 1}
    assert found["bytes/received"] == {3: status.bytes_received}
    spent = epsilon_pld([round_event(HYPERPARAMETERS).times(ROUNDS)], 1e-5)
    assert found["epsilon"][3] == pytest.approx(spent, rel=1e-6)
    assert found["epsilon"][1] < found["epsilon"][2] < found["epsilon"][3]
    texts = texts_in(folder)
    assert texts["plan_digest"] == status.plan_digest
    assert texts["state"] == "completed"


async def test_a_run_that_is_followed_has_the_time_of_each_round(serving, tmp_path):
    federation, config = serving
    await federation.start(plan_of("a"))
    (a,) = await federation.gateways("a")
    folder = str(tmp_path / "figures")
    following = asyncio.create_task(exported(config, "--tensorboard", folder, "--follow"))
    await a.follow("r")
    assert (await following)["rounds"] == ROUNDS
    found = scalars_in(tmp_path / "figures" / "r")
    assert found["updates"].keys() == {1, 2, 3}
    assert all(seconds >= 0 for seconds in found.get("seconds/round", {}).values())
    assert texts_in(tmp_path / "figures" / "r")["state"] == "completed"


def the_run(uri: str, federation):
    """Return the one run in the federation's experiment."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(federation.config.federation)
    (run,) = client.search_runs([experiment.experiment_id])
    return run


async def test_mlflow_has_the_run_in_the_federations_experiment_once(serving, tmp_path):
    federation, config = serving
    running = await federation.start(plan_of("a"))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    await exported(config, "--mlflow", uri)
    assert the_run(uri, federation).info.status == "RUNNING"
    (a,) = await federation.gateways("a")
    await a.follow("r")
    status = await scored(running)
    first = await exported(config, "--mlflow", uri)
    again = await exported(config, "--mlflow", uri)
    assert (first["points"] > 0, again["points"]) == (True, 0)
    run, client = the_run(uri, federation), MlflowClient(tracking_uri=uri)
    history = client.get_metric_history(run.info.run_id, "f1/dev")
    assert {each.step: each.value for each in history} == {1: 0.5, 3: 0.75}
    assert run.data.params["hyperparameters.clipping_norm"] == str(HYPERPARAMETERS.clipping_norm)
    assert run.data.tags["fedgate.plan_digest"] == status.plan_digest
    assert (run.info.run_name, run.info.status) == ("r", "FINISHED")


async def test_without_a_store_it_says_which_there_are(serving):
    with pytest.raises(NowhereToGo, match="--tensorboard FOLDER, --mlflow URI"):
        await exported(serving[1])


async def test_an_mlflow_that_is_not_there_is_named(serving):
    with pytest.raises(StoreUnreachable, match=r"MLflow at nowhere:.* takes no figures .*see"):
        await exported(serving[1], "--mlflow", "nowhere://at-all")


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        (("--tensorboard", "figures"), "tensorboard.summary.writer", "tensorboard"),
        (("--mlflow", "http://127.0.0.1:1"), "mlflow", "mlflow"),
    ],
)
async def test_a_missing_extra_is_named(serving, monkeypatch, words, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraMissing, match=rf"pip install 'fedgate\[{extra}\]'"):
        await exported(serving[1], *words)
