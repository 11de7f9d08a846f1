"""A soak of seconds: runs of real processes go on, samples are taken, kept and drawn."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.soak import __main__ as soak
from benchmarks.soak.sampling import read, sample
from benchmarks.transport.places import state_folder

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(soak.main)

    def run(*arguments: str) -> dict:
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_soak_counts_its_rounds_and_can_be_drawn_again(run, tmp_path):
    table, figure, again = tmp_path / "soak.csv", tmp_path / "soak.svg", tmp_path / "again.svg"
    asked = ["--minutes", "0.05", "--every-s", "0.1", "--warm-up", "0", "--share", "1"]
    with state_folder(Path(), durable=False) as folder:  # whose path is short enough for sockets
        where = ("--folder", str(folder), "--csv", str(table), "--figure", str(figure))
        found = run(*asked, *where)
    assert found["correct"] is True
    assert found["runs"] > found["interrupted"] == 0
    samples = read(table)
    assert {each.process for each in samples} == {"orchestrator", "gateway"}
    assert samples[-1].rounds == found["rounds"] >= 2
    assert all(each.descriptors and each.threads and each.rss_mib > 1 for each in samples)
    assert "orchestrator: file descriptors" in figure.read_text()
    drawn = run("--from-csv", str(table), "--warm-up", "0", "--figure", str(again))
    assert drawn["orchestrator_rss_mb_per_h"] == found["orchestrator_rss_mb_per_h"]
    assert again.read_text() == figure.read_text()


def test_a_sample_sees_what_a_process_opens():
    before = sample("self", os.getpid(), 0.0, 0)
    with Path(os.devnull).open():
        during = sample("self", os.getpid(), 0.0, 0)
    assert during.descriptors == before.descriptors + 1
