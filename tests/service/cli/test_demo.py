"""`fedgate demo`: the real commands as processes, on the corpus that is built in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time  # noqa: TID251 - waits for real processes
from pathlib import Path

import pytest

from cli.model_folder import read_model

pytestmark = pytest.mark.timeout(420)

ROOT = Path(__file__).parents[3]


def fedgate(*arguments: str, cwd: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        input=text,
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(cwd)},
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo of four rounds: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    found = fedgate("demo", "--rounds", "4", "--format", "json", cwd=folder)
    assert found.returncode == 0, found.stderr
    return folder, json.loads(found.stdout), found.stderr


def test_it_prints_one_object_with_what_was_found(demo):
    _, result, _ = demo
    assert 0.1 < result["f1"] <= 1  # four rounds reach about 0.3
    assert 7.9 < result["epsilon"] <= 8
    assert result["epsilon"] == max(result["epsilon_per_gateway"].values())
    assert (result["delta"], result["unit"]) == (1e-5, "document")
    assert result["relation"] == "add_or_remove_one"
    assert (result["corpus"], result["rounds"], len(result["sites"])) == ("letters", 4, 3)
    assert result["f1_pooled_not_private"] > max(result["f1_alone_not_private"].values())
    assert result["seconds"] > 0
    assert result["bytes_received"] == result["bytes_sent"] > 0


def test_it_shows_progress_on_standard_error(demo):
    _, _, progress = demo
    assert "round 4/4 · gateways 3 in, 0 out" in progress


def test_it_says_where_its_page_is(demo):
    _, _, progress = demo
    assert "watch it: http://127.0.0.1:" in progress


def test_it_leaves_the_model_and_nothing_else(demo):
    folder, result, _ = demo
    assert [path.name for path in folder.iterdir()] == ["model"]
    weights, card = read_model(folder / "model")
    assert card.sha256 == result["model_sha256"]
    assert card.blake3 == weights.digest
    assert card.scores["test"] == result["f1"]
    assert "8.0" in card.statement or "7.9" in card.statement
    assert "at delta 1e-05 (document unit, add_or_remove_one neighbours)" in card.statement
    assert (card.unit, card.relation, card.delta) == ("document", "add_or_remove_one", 1e-5)
    assert [gateway.declared_units for gateway in card.gateways] == [320, 260, 200]


def test_the_model_tags_text_and_scores_as_it_did(demo):
    folder, result, _ = demo
    text = "Dr Okafor started him on warfarin .\n"
    tagged = fedgate("model", "predict", "--format", "json", cwd=folder, text=text)
    sentence = json.loads(tagged.stdout)
    assert sentence["words"] == text.split()
    assert len(sentence["tags"]) == len(sentence["words"])
    scored = fedgate("model", "evaluate", "--corpus", "letters", "--format", "json", cwd=folder)
    assert json.loads(scored.stdout)["f1"] == pytest.approx(result["f1"], abs=1e-6)


def test_an_altered_model_is_not_used(demo, tmp_path):
    folder, _, _ = demo
    for file in (folder / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    found = fedgate("model", "predict", "--model", str(tmp_path), cwd=folder, text="a b")
    assert found.returncode == 1
    assert "is not the one that model.json describes" in found.stderr


def test_ctrl_c_ends_every_process(tmp_path):
    demo = subprocess.Popen(
        [sys.executable, "-m", "cli", "demo", "--keep", "kept"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 60
    while len(_running(tmp_path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(_running(tmp_path)) >= 4
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert _running(tmp_path) == []


def _running(folder: Path) -> list[str]:
    """Return the command lines of processes that name a file in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["demo", "--gateways", "7"], "7 gateways asked for, letters has 6 sites"),
        (["demo", "--corpus", "nope"], "nope"),
        (["demo", "--corpus", "bc5cdr", "--data-dir", "."], "bc5cdr"),
        (["run", "list", "--config", "none.toml"], "none.toml cannot be used"),
        (["model", "predict", "--model", "none"], "No such file"),
        (["serve", "--config", "none.toml"], "none.toml cannot be used"),
    ],
)
def test_a_mistake_ends_in_one_screen_with_the_way_out(tmp_path, arguments, problem):
    found = fedgate(*arguments, cwd=tmp_path)
    assert found.returncode == 1
    assert problem in found.stderr
    assert "Traceback" not in found.stderr
    assert len(found.stderr.splitlines()) < 20
