"""The benchmark of a round on a small model: it runs, and the average is the exact one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.round import Wire, measure
from benchmarks.transport.federation import Federation, Setting
from benchmarks.transport.floor import Floor, Work
from benchmarks.transport.places import state_folder

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(("tls", "wire"), [(False, "float32"), (True, "bf16"), (False, "int8")])
def test_rounds_and_their_floor_are_measured_and_correct(tls, wire):
    with state_folder(Path(), durable=False) as folder:  # whose path is short enough for sockets
        work = Work(mib=2, gateways=3, folder=folder / "floor", durable=True)
        setting = Setting(
            mib=2,
            gateways=3,
            tls=tls,
            folder=folder / "all",
            processes=2,
            wire_format=Wire(wire).wire_format,
        )
        with Floor(work) as floor, Federation(setting) as federation:
            line = measure(federation, floor, rounds=2).line()
    assert line["correct"] is True
    assert line["rounds"] == 2
    assert min(line["round_min_s"], line["floor_median_s"], line["orchestrator_cpu_s"]) > 0
