"""Every line of a log has one event, by a name that docs/how-to/read-the-log.md explains."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "read-the-log.md"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
NAME = re.compile(r"[a-z]+(_[a-z]+)*")
WRITTEN_AS = {"exc_info": "exception"}  # what becomes of a field on its way to the line


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call that logs, with the package that makes it."""
    for package in ("common", "orchestrator", "gateway", "private_step", "cli", "tasks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name.endswith(("_pb2.py", "_pb2_grpc.py")):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _logs(node.func):
                    yield package, node


def _logs(called: ast.expr) -> bool:
    return (
        isinstance(called, ast.Attribute)
        and called.attr in LEVELS
        and isinstance(called.value, ast.Name)
        and called.value.id in {"log", "LOG"}
    )


def names(call: ast.Call) -> list[str]:
    """Return the event's name, or the two between which a condition chooses."""
    assert isinstance(call.func, ast.Attribute)
    first = call.args[1] if call.func.attr == "log" else call.args[0]
    branches = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
    assert all(isinstance(each, ast.Constant) for each in branches), ast.unparse(call)
    return [each.value for each in branches if isinstance(each, ast.Constant)]


@cache
def written() -> dict[tuple[str, str], set[str]]:
    """Return the fields of each event, by its name and the side that says it."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for package, call in calls():
        side = package if package in {"orchestrator", "gateway"} else "both"
        fields = {keyword.arg for keyword in call.keywords if keyword.arg}
        if isinstance(call.func, ast.Attribute) and call.func.attr == "exception":
            fields.add("exc_info")
        for name in names(call):
            found[name, side] |= {WRITTEN_AS.get(field, field) for field in fields}
    return found


@cache
def explained() -> dict[tuple[str, str], set[str]]:
    """Return the same as the page has it."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {(name, side): set(re.findall(r"`(\w+)`", fields)) for name, side, fields in rows}


def test_an_event_is_a_name_of_small_words():
    assert [name for _, call in calls() for name in names(call) if not NAME.fullmatch(name)] == []


def test_the_page_explains_every_event_and_no_other():
    assert explained().keys() == written().keys()


@pytest.mark.parametrize("event", sorted(explained()))
def test_the_page_lists_the_fields_of_an_event(event):
    assert explained()[event] == written()[event]


def test_a_reason_is_always_called_why():
    fields = {field for each in written().values() for field in each}
    assert not fields & {"error", "message", "cause", "err", "msg", "text"}


def test_nothing_logs_but_by_events():
    for package in ("common", "orchestrator", "gateway", "private_step", "tasks"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"logging\.(info|warning|error|debug|exception)\(", text), path
