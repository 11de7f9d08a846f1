"""`fedgate try`: what is wrong with a plan or with data is said before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.demo.local import NotASiteAndItsData, SitesDiffer, own_federation
from cli.main import app
from common.config import SettingsInvalid
from common.key_files import AlreadyThere
from common.plan import Unit
from gateway.choices import GradientsBy
from gateway.one_backward import NotInOneBackward
from tasks.ner.errors import BrokenLine, DataFileMissing, NoSentences
from tasks.task import UnitNotCarried

SITES = ("north=north.jsonl", "south=south.conll")
TEST = Path("public.jsonl")


def rows(*splits: str | None, **more: str) -> str:
    """Sentences as JSON lines, one for each split."""
    found = ({"text": "has gout", "tags": "O B-Disease", "split": split} for split in splits)
    return "".join(json.dumps({**row, **more}) + "\n" for row in found)


def planned(*, unit: Unit = Unit.EXAMPLE) -> None:
    sites = ("--gateway", "north:20", "--gateway", "south:20", "--unit", unit)
    quick = ("--sampling-rate", "1", "--rounds", "2")  # to account
    made = CliRunner().invoke(
        app, ["init", "--name", "notes", "--label", "Disease", *sites, *quick]
    )
    assert made.exit_code == 0, made.exception


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A plan for two sites, and their data."""
    monkeypatch.chdir(tmp_path)
    Path("north.jsonl").write_text(rows("train", None))
    Path("south.conll").write_text("no\tO\ngout\tB-Disease\n")
    TEST.write_text(rows("dev", "test"))
    return tmp_path


def test_each_gateway_reads_its_own_file_and_may_spend_what_the_plan_states(folder):
    planned()
    found = own_federation(Path("plan.toml"), SITES, TEST)
    assert found.data == {
        "north": {"path": str(folder / "north.jsonl")},
        "south": {"path": str(folder / "south.conll")},
    }
    assert found.public == {"path": str(folder / "public.jsonl")}
    assert (found.run, found.epsilon_budget, found.labels) == ("notes", 8.0, ("Disease",))
    assert found.plan == Path("plan.toml").read_text()


@pytest.mark.parametrize(
    ("sites", "error", "said"),
    [
        (("north", "south=south.conll"), NotASiteAndItsData, "'north' is not NAME=FILE"),
        (("north=", "south=south.conll"), NotASiteAndItsData, "'north=' is not NAME=FILE"),
        (SITES[:1], SitesDiffer, "given for north, and .* are north, south"),
        ((*SITES, "west=north.jsonl"), SitesDiffer, "given for north, south, west"),
        ((*SITES, "north=north.jsonl"), SitesDiffer, "given for north, south, north"),
        (("north=none.jsonl", SITES[1]), DataFileMissing, r"no data file at none\.jsonl"),
        (("north=public.jsonl", SITES[1]), NoSentences, "public"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_wrong_with_the_sites_is_said(sites, error, said):
    planned()
    with pytest.raises(error, match=said):
        own_federation(Path("plan.toml"), sites, TEST)


@pytest.mark.usefixtures("folder")
def test_a_broken_line_is_named():
    planned()
    Path("north.jsonl").write_text(rows("train") + "{")
    with pytest.raises(BrokenLine, match=r"north\.jsonl, line 2"):
        own_federation(Path("plan.toml"), SITES, TEST)


@pytest.mark.usefixtures("folder")
def test_data_that_do_not_name_the_plan_s_unit_are_refused():
    planned(unit=Unit.DOCUMENT)
    with pytest.raises(UnitNotCarried, match=r"north\.jsonl: no document is named"):
        own_federation(Path("plan.toml"), SITES, TEST)


@pytest.mark.usefixtures("folder")
def test_public_data_without_a_split_for_the_end_are_refused():
    planned()
    TEST.write_text(rows("dev"))
    with pytest.raises(NoSentences, match="test"):
        own_federation(Path("plan.toml"), SITES, TEST)


@pytest.mark.usefixtures("folder")
def test_a_plan_that_is_not_there_ends_the_command_with_its_name():
    found = CliRunner().invoke(app, ["try", *SITES, "--test", "public.jsonl"])
    assert isinstance(found.exception, SettingsInvalid)
    assert "plan.toml" in str(found.exception)


UNCLIPPABLE = """
from torch import nn
from tests.tiny_task import TinyTask, WIDTH

class Bent(TinyTask):
    def build_model(self, labels):
        return nn.Sequential(Bend(), super().build_model(labels))

class Bend(nn.Module):
    def __init__(self):
        super().__init__()
        import torch
        self.by = nn.Parameter(torch.ones(WIDTH))
    def forward(self, x):
        return x * self.by

TASK = Bent()
"""


@pytest.mark.usefixtures("folder")
def test_a_model_that_gateways_would_refuse_is_refused_before_they_start():
    Path("bent.py").write_text(UNCLIPPABLE)
    plan = ["init", "--name", "bent", "--reference", "bent.py:TASK", "--label", "a", "--label", "b"]
    sites = ("--gateway", "north:20", "--gateway", "south:20", "--sampling-rate", "1")
    CliRunner().invoke(app, [*plan, *sites])
    with pytest.raises(NotInOneBackward, match="Bend"):
        own_federation(Path("plan.toml"), SITES, TEST)
    found = own_federation(Path("plan.toml"), SITES, TEST, GradientsBy.FUNCTIONAL)
    assert found.gradients is GradientsBy.FUNCTIONAL


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", [["try", *SITES, "--test", "public.jsonl"], ["demo"]])
def test_a_folder_that_is_kept_already_is_left_as_it_is(command):
    planned()
    Path("kept").mkdir()
    found = CliRunner().invoke(app, [*command, "--keep", "kept"])
    assert isinstance(found.exception, AlreadyThere)
    assert not list(Path("kept").iterdir())
