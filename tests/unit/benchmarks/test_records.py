"""What was measured beside what was recorded."""

from __future__ import annotations

import pytest

from benchmarks.records import compare, machines
from benchmarks.registry import Benchmark

ROUND = Benchmark(
    "round", ("unused",), of=("mib", "tls"), metrics=("ratio", "seconds", "growth_per_h")
)
RECORDED = [
    {"mib": 25, "tls": False, "ratio": 2.0, "seconds": 0.5, "commit": "a"},
    {"mib": 100, "tls": True, "ratio": 3.0, "seconds": 0.0},
]


def found(now) -> dict[tuple[str, str], tuple[float | None, float | None, float | None]]:
    return {
        (each.configuration, each.metric): (each.recorded, each.now, each.ratio)
        for each in compare(ROUND, RECORDED, now)
    }


def test_each_metric_of_each_configuration_stands_beside_the_record():
    now = [
        {"mib": 100, "tls": True, "ratio": 1.5, "seconds": 0.25, "commit": "b"},
        {"mib": 25, "tls": False, "ratio": 2.5, "seconds": 0.5},
    ]
    assert found(now) == {
        ("mib=100 tls=True", "ratio"): (3.0, 1.5, 0.5),
        ("mib=100 tls=True", "seconds"): (0.0, 0.25, None),
        ("mib=25 tls=False", "ratio"): (2.0, 2.5, 1.25),
        ("mib=25 tls=False", "seconds"): (0.5, 0.5, 1.0),
    }


def test_what_is_new_and_what_is_gone_has_no_ratio():
    assert found([{"mib": 1, "tls": True, "ratio": 4.0}]) == {
        ("mib=1 tls=True", "ratio"): (None, 4.0, None),
        ("mib=25 tls=False", "ratio"): (2.0, None, None),
        ("mib=25 tls=False", "seconds"): (0.5, None, None),
        ("mib=100 tls=True", "ratio"): (3.0, None, None),
        ("mib=100 tls=True", "seconds"): (0.0, None, None),
    }


def test_of_an_interval_the_value_counts():
    (growth,) = compare(ROUND, [], [{"mib": 1, "tls": True, "growth_per_h": [0.5, 0.25, 0.75]}])
    assert (growth.metric, growth.now) == ("growth_per_h", 0.5)


@pytest.mark.parametrize("field", ["cores", "processor", "python"])
def test_another_machine_or_python_is_noticed(field):
    line = {"cores": 2, "processor": "x86_64", "python": "3.11.7"}
    assert machines([line, line]) == machines([{**line, "commit": "b"}])
    assert machines([line]) != machines([{**line, field: "other"}])
