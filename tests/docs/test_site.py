"""The site of docs/ is built strictly, stands alone, and says all that the code has."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import ROOT, named, pages
from website import commands, fields, protocol, settings
from website.meanings import meaning
from website.repository import site_path

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)  # of the build, where many tests run beside it
LOADED = re.compile(r'(?:<script[^>]*\ssrc|<link[^>]*\shref|<img[^>]*\ssrc)="([^"]+)"')


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site, built once for all processes that test; strict: a warning is an error."""
    common = tmp_path_factory.getbasetemp().parent
    folder, built = common / "site", common / "site.json"
    with (common / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
            said = subprocess.run(
                line,
                capture_output=True,
                text=True,
                cwd=ROOT,
                check=False,
                env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
            )
            built.write_text(json.dumps([said.returncode, said.stderr]))
        code, words = json.loads(built.read_text())
    assert code == 0, words
    assert "WARNING" not in words
    return folder


def test_every_page_of_the_repository_is_on_the_site(site):
    paths = (site_path(named(page)) for page in pages())
    assert not [path for path in paths if not (site / path.replace(".md", ".html")).exists()]


def test_nothing_is_loaded_from_other_hosts(site):
    loaded = {
        link for page in site.rglob("*.html") for link in LOADED.findall(page.read_text("utf-8"))
    }
    assert loaded
    away = {link for link in loaded if re.match(r"(https?:)?//", link)}
    assert away == set()


def test_the_search_finds_what_a_page_says(site):
    index = next(site.glob("search/search_index.js*")).read_text("utf-8")
    assert "how-the-privacy-works.html" in index


def test_every_command_is_in_the_reference_with_every_option(site):
    for program in commands.APPS:
        page = (site / "reference" / f"{program}.html").read_text("utf-8")
        ours = [each for each in commands.commands() if each.words[0] == program]
        assert ours
        for command in ours:
            options = {option for each in command.parsed.params for option in each.opts}
            assert f">{command.name}<" in page
            assert all(option in page for option in options if option.startswith("--"))


def test_the_python_interface_is_in_the_reference(site):
    said = (site / "reference" / "private-step.html").read_text("utf-8")
    assert "private_step.PrivateStep" in said
    assert "tasks.task.Task.build_model" in (site / "reference" / "task.html").read_text("utf-8")


ALL_FIELDS = [
    pytest.param(model, name, id=f"{file}:{path}.{name}")
    for file, (whole, _) in settings.FILES.items()
    for path, model in settings.tables(whole)
    for name, _ in settings.fields(model)
]


@pytest.mark.parametrize(("model", "name"), ALL_FIELDS)
def test_every_setting_says_what_it_means(model, name):
    inner, _ = settings.table_of(model, name)
    assert meaning(model, name) or (inner is not None and inner.__doc__)
    assert inner is not None or fields.kind(model.model_fields[name])


def test_a_setting_is_described_by_what_its_model_allows():
    (limits,) = (
        model
        for path, model in settings.tables(settings.FILES["orchestrator.toml"][0])
        if path == "limits"
    )
    streams = limits.model_fields["streams"]
    assert (fields.kind(streams), fields.bounds(streams), fields.default(streams)) == (
        "integer",
        "≥ 1",
        "`64`",
    )


def test_every_option_says_what_it_does():
    silent = [
        f"{command.name} {parameter.name}"
        for command in commands.commands()
        for parameter in command.parsed.params
        if not parameter.help
    ]
    assert silent == []


def test_every_call_of_the_protocol_says_what_it_does():
    files = protocol.files()
    calls = {
        method.name: protocol.Comments(file).of(6, n, 2, m)
        for file in files
        for n, service in enumerate(file.service)
        for m, method in enumerate(service.method)
    }
    assert len(calls) > 20
    assert [name for name, said in calls.items() if not said] == []
