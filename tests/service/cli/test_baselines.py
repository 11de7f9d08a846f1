"""`fedgate model baselines`: what is wrong with what it is told."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cli.baselines import NotASiteAndItsFeatures
from cli.main import app


@pytest.mark.parametrize("site", ["north", "=north", "north="])
def test_a_site_without_a_folder_is_refused_with_what_to_write(site):
    words = ("model", "baselines", "--site", site, "--label", "Disease", "--corpus", "letters")
    said = CliRunner().invoke(app, words)
    assert isinstance(said.exception, NotASiteAndItsFeatures)
    assert f"{site!r} is not NAME=FOLDER" in str(said.exception)
