"""The benchmark of a fan-out on a few gateways: all are told, and nothing fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.fanout import measure
from benchmarks.transport import moments
from benchmarks.transport.federation import Federation, Setting
from benchmarks.transport.places import state_folder
from common.ids import RunId

RUN = RunId("r")


@pytest.mark.timeout(120)
def test_few_gateways_are_told_and_their_rounds_are_correct():
    with state_folder(Path(), durable=False) as folder:  # whose path is short enough for sockets
        setting = Setting(mib=1, gateways=6, tls=True, folder=folder / "all", processes=2)
        with Federation(setting) as federation:
            found = measure(federation, rounds=2, idle_s=0.5)
    assert found.correct
    assert found.errors == 0
    assert len(found.told_s) == len(found.round_s) == 2
    assert all(0 < told < whole for told, whole in zip(found.told_s, found.round_s, strict=True))


def line(event: str, level: str = "info", **others: object) -> str:
    return json.dumps({"event": event, "level": level, **others})


def test_a_round_counts_as_told_when_the_last_process_has_the_word():
    opened = [line(moments.OPENING, run=RUN, round=n, at=10.0 * n) for n in (1, 2)]
    first = [line(moments.ALL_TOLD, run=RUN, round=n, at=10.0 * n + 1) for n in (1, 2)]
    last = [line(moments.ALL_TOLD, run=RUN, round=n, at=10.0 * n + n + 1) for n in (1, 2)]
    logs = "\n".join(opened), ["\n".join(first), "\n".join(last)]
    assert moments.told_s(*logs, RUN) == (2.0, 3.0)


@pytest.mark.parametrize(
    "bad",
    [
        line(moments.CALL_FAILED, "warning"),
        line(moments.REFUSED),
        line(moments.REGISTERED, gateway="g1"),  # once more
        "Traceback (most recent call last):",
    ],
)
def test_whatever_failed_is_counted(bad):
    fine = line(moments.REGISTERED, gateway="g1")
    assert moments.errors(line("recorded"), [fine]) == 0
    assert moments.errors(line("recorded"), [f"{fine}\n{bad}"]) == 1
