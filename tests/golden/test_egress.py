"""What may leave a gateway, as recorded: a field or a class that changes is a decision.

After a change that is meant: `python -m tests.golden.test_egress`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

RECORDED = Path(__file__).parent / "egress.json"


def _printed(folder: Path, *arguments: str) -> str:
    """Return what the command prints, far from any settings."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "gateway", "egress", *arguments]
    environment = {**os.environ, "PYTHONPATH": root, "COLUMNS": "80"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def _shape(printed: str) -> dict[str, object]:
    """Leave the prose out."""
    found = json.loads(printed)
    assert set(found) == {"counts", "fields", "beside"}
    assert all(set(each) == {"field", "class", "admits", "why"} for each in found["fields"])
    assert all(set(each) == {"name", "class", "why"} for each in found["beside"])
    return {
        "counts": found["counts"],
        "fields": {each["field"]: each["class"] for each in found["fields"]},
        "beside": {each["name"]: each["class"] for each in found["beside"]},
    }


def test_what_may_leave_is_what_was_recorded(tmp_path):
    assert _shape(_printed(tmp_path, "--format", "json")) == json.loads(RECORDED.read_text())


def test_the_text_names_every_field_in_full(tmp_path):
    lines = _printed(tmp_path).splitlines()
    recorded = json.loads(RECORDED.read_text())
    for field, kind in recorded["fields"].items():
        assert f"{field}: {kind}" in lines
    assert sum(recorded["counts"].values()) == len(recorded["fields"])


def test_the_page_for_privacy_officers_counts_the_same():
    page = (RECORDED.parents[2] / "docs/explanation/privacy.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([a-z]+)` \|.*\| (\d+) \|$", page, re.MULTILINE))
    assert told == {"masked": "0"} | {
        kind: str(count) for kind, count in json.loads(RECORDED.read_text())["counts"].items()
    }


if __name__ == "__main__":
    text = json.dumps(_shape(_printed(Path.cwd(), "--format", "json")), indent=2)
    RECORDED.write_text(text + "\n", encoding="utf-8")
