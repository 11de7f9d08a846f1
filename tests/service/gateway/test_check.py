"""`fedgate-gateway check`: which units of privacy a site's own data carry."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w
from typer.testing import CliRunner

from common.config import load_settings
from common.ids import GatewayId
from common.tls import Role
from gateway.cli import app
from gateway.config import GatewayConfig
from gateway.device import NoGpu, is_usable
from gateway.workshop import Workshop
from tasks.loading import load_task
from tests.certificates import Authority
from tests.signing import trust_file

OWNERS = ["Ann", "Ann", ["Ann", "Bob"]]


@pytest.fixture
def settings(tmp_path):
    """A gateway with three sentences of two documents; the last one belongs to two persons."""
    rows = [
        {"text": "no gout", "tags": "O B-Disease", "document": f"d{n % 2}", "person": owner}
        for n, owner in enumerate(OWNERS)
    ]
    data = tmp_path / "notes.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tls = Authority.make(tmp_path / "keys").issue(Role.GATEWAY, "clinic")
    tables = {
        "address": "localhost:1",
        "tls": {name: str(path) for name, path in tls},
        "task": {"reference": "tasks.ner:TASK", "labels": ["Disease"]},
        "data": {"path": str(data)},
        "trust": {"plan_keys": str(trust_file(tmp_path))},
        "policy": {"epsilon_budget": 8.0},
    }
    path = tmp_path / "gateway.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


def told(settings, *arguments: str) -> str:
    words = ["check", "--config", str(settings), "--offline", "--no-rehearsal", *arguments]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stdout
    return result.stdout


def test_it_counts_the_units_and_what_belongs_to_several_persons(settings):
    report = json.loads(told(settings, "--format", "json"))["data"]
    assert report["per_unit"] == {"example": 3, "document": 2, "person": 1}
    assert report["shared"] == 1
    assert json.loads(told(settings, "--format", "json"))["privacy"] == {
        "units": ["document", "example", "person"],
        "relation": "add_or_remove_one",
        "delta": 1e-5,
    }
    shown = told(settings)
    assert "units: document" in shown
    assert "left out where the unit is the person" in shown


def test_a_unit_that_is_not_in_every_line_is_not_counted(settings):
    data = settings.with_name("notes.jsonl")
    data.write_text(data.read_text() + '{"text": "well", "tags": "O", "document": "d2"}\n')
    report = json.loads(told(settings, "--format", "json"))["data"]
    assert report["per_unit"] == {"example": 4, "document": 3}


def spoil(settings, *lines: str) -> str:
    """Add lines to the data; return their path."""
    data = settings.with_name("notes.jsonl")
    data.write_text(data.read_text() + "".join(f"{line}\n" for line in lines))
    return str(data)


def refused(settings, *arguments: str) -> str:
    """Check settings that have a problem; return what is said."""
    words = ["check", "--config", str(settings), "--offline", *arguments]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1, result.stdout
    return result.stdout


def test_all_bad_lines_are_counted_the_first_ten_named_and_the_others_reported_on(settings):
    secrets = ['{"text": "Ann Secret", "tags": "O"}'] * 9
    path = spoil(settings, "{", '{"text": "Secret", "tags": "B-Drug"}', *secrets)
    said = " ".join(refused(settings).split())
    first = "line 4: the line: is not JSON; nothing was read from this file"
    assert f"{path}, {first}" in said  # what training ends with
    assert f"11 lines of {path} are to be mended: line 4: the line: is not JSON; line 5: " in said
    assert "line 5: label 'Drug' is not among the labels Disease; line 6: 2 tokens and" in said
    assert "line 13: 2 tokens and 1 tags; need one tag a token; and 1 more" in said
    assert "in order are 3 examples (3 of unit example" in said
    assert "3 Disease" in said
    assert "Secret" not in said


def test_bad_lines_are_objects_in_json_and_keep_training_from_being_rehearsed(settings):
    spoil(settings, "{")
    found = json.loads(refused(settings, "--format", "json"))
    assert found["bad_lines"] == 1
    assert found["first_bad_lines"] == [{"line": 4, "reason": "the line: is not JSON"}]
    assert found["data"]["per_label"] == {"Disease": 3}
    assert found["rehearsal"] is None


def on(device: str, settings):
    """Write `device` into the settings."""
    settings.write_text(f'device = "{device}"\n{settings.read_text()}')
    return settings


def test_it_says_which_device_is_taken(settings):
    best = "cuda" if is_usable("cuda") else "cpu"
    assert json.loads(told(settings, "--format", "json"))["device"] == best
    on("cpu", settings)
    assert json.loads(told(settings, "--format", "json"))["device"] == "cpu"
    assert 'trains on cpu (device = "cpu")' in told(settings)


def test_a_device_of_another_name_is_refused_by_field(settings):
    result = CliRunner().invoke(app, ["check", "--config", str(on("tpu", settings))])
    assert result.exit_code == 1
    assert "device" in str(result.exception)
    assert "'auto', 'cpu' or 'cuda'" in str(result.exception)


@pytest.mark.skipif(is_usable("cuda"), reason="torch finds a GPU here")
def test_without_a_gpu_one_that_is_asked_for_is_refused_before_anything_is_read(settings):
    result = CliRunner().invoke(app, ["check", "--offline", "--config", str(on("cuda", settings))])
    assert result.exit_code == 1
    assert str(NoGpu()) in " ".join(result.stdout.split())
    config = load_settings(GatewayConfig, settings)
    with pytest.raises(NoGpu):
        Workshop(GatewayId("clinic"), config, load_task(config.task.reference), None)
    assert not config.state.exists()


def test_a_step_on_the_data_tells_how_long_a_round_takes_and_leaves_nothing(settings):
    state = settings.parent / "state"
    settings.write_text(f'state = "{state}"\n{settings.read_text()}')
    words = ["check", "--config", str(settings), "--offline", "--format", "json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stdout
    found = json.loads(result.stdout)["rehearsal"]
    assert found["units"] == 3
    assert found["seconds_per_step"] > 0
    assert not state.exists()


def test_a_step_that_the_task_cannot_take_is_a_problem_with_its_mend(settings):
    broken = settings.with_name("broken.py")
    tiny = Path(__file__).parents[2] / "tiny_task.py"
    broken.write_text(
        tiny.read_text().replace('return cross_entropy(model(x), y, reduction="none")', "1 / 0")
    )
    tables = tomllib.loads(settings.read_text())
    tables |= {
        "task": {"reference": f"{broken}:TASK", "labels": ["no", "yes"]},
        "data": {"corpus": "points", "site": "a"},
    }
    settings.write_text(tomli_w.dumps(tables))
    result = CliRunner().invoke(app, ["check", "--config", str(settings), "--offline"])
    assert result.exit_code == 1
    assert "a step on these data fails (ZeroDivisionError" in " ".join(result.stdout.split())


def test_what_may_come_to_harm_is_a_warning_and_no_problem(settings):
    settings.write_text(f"threads = 1000\n{settings.read_text().replace('Disease', 'Drug')}")
    data = settings.with_name("notes.jsonl")
    data.write_text('{"text": "no gout", "tags": "O O"}\n')
    found = json.loads(told(settings, "--format", "json"))["findings"]
    warned = {each["about"]: each["message"] for each in found if each["level"] == "warning"}
    assert warned.keys() == {"threads", "labels"}
    assert "has no Drug, which [task] labels name" in warned["labels"]


def test_a_probe_loads_neither_torch_nor_sql(settings):
    code = (
        "import sys; from gateway.cli import health; from pathlib import Path\n"
        "try: health(Path(sys.argv[1]))\n"
        "except BaseException as end: print(end.exit_code)\n"
        "print(sorted({'torch', 'scipy', 'sqlalchemy', 'transformers'} & sys.modules.keys()))"
    )
    probe = [sys.executable, "-c", code, str(settings)]
    said = subprocess.run(probe, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["1", "[]"]
