"""`python -m benchmarks`: what it measures, what it compares with, and when it records."""

from __future__ import annotations

import importlib.util
import json

import pytest
import typer

from benchmarks import __main__ as bench
from benchmarks.registry import BENCHMARKS, Benchmark

TOY = """
import json, sys
print(json.dumps({"size": int(sys.argv[1]), "seconds": float(sys.argv[2])}))
sys.exit(int(sys.argv[3]))
"""


@pytest.fixture
def measure(tmp_path, monkeypatch, capsys):
    """Measures one benchmark of two configurations; the second may fail."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def measure(seconds: float, *, record: bool = False, fails: bool = False) -> list[list[str]]:
        commands = (f"toy 1 {seconds} 0", f"toy 2 {2 * seconds} {int(fails)}")
        made = Benchmark("toy", commands, of=("size",), metrics=("seconds",))
        monkeypatch.setattr(bench, "BENCHMARKS", (made,))
        try:
            bench.main(None, record=record, results=tmp_path / "results")
        except typer.Exit:
            assert fails
        rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
        return [[cell.strip() for cell in row[2:-1]] for row in rows]

    return measure


def test_what_is_measured_stands_beside_the_record(measure):
    assert measure(2.0, record=True) == [
        ["size=1", "seconds", "-", "2", "-"],
        ["size=2", "seconds", "-", "4", "-"],
    ]
    for _ in range(2):  # without --record it stays
        assert measure(3.0) == [
            ["size=1", "seconds", "2", "3", "1.5"],
            ["size=2", "seconds", "4", "6", "1.5"],
        ]


def test_a_benchmark_that_fails_is_not_recorded(measure):
    measure(2.0, record=True)
    measure(9.0, record=True, fails=True)
    assert [row[2] for row in measure(2.0)] == ["2", "4"]


def test_a_record_is_json_lines(measure, tmp_path):
    measure(2.0, record=True)
    lines = (tmp_path / "results" / "toy.jsonl").read_text().splitlines()
    assert [json.loads(line)["seconds"] for line in lines] == [2.0, 4.0]


def test_every_command_of_the_registry_is_a_module_of_its_own_name():
    assert len({each.name for each in BENCHMARKS}) == len(BENCHMARKS)
    for benchmark in BENCHMARKS:
        for command in benchmark.commands:
            assert importlib.util.find_spec(command.split()[0]) is not None, command


def test_only_known_benchmarks_are_chosen():
    assert [each.name for each in bench.chosen(["soak"])] == ["soak"]
    assert "soak" not in {each.name for each in bench.chosen(None)}
    with pytest.raises(typer.BadParameter, match="'sook' is none of round"):
        bench.chosen(["sook"])
