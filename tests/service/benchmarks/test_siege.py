"""A smaller siege by real processes: the rounds close, and the orchestrator hardly grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.siege import Besieged, measure
from benchmarks.transport.attack_process import Attack
from benchmarks.transport.federation import Setting
from benchmarks.transport.places import state_folder
from orchestrator.config import Limits

ATTACK = Attack(half_open=50, calls_per_s=10 * Limits().requests_per_s, bomb_mib=64, silent=50)


@pytest.mark.timeout(240)
def test_under_attack_rounds_close_correctly_and_memory_stays_bounded():
    with state_folder(Path(), durable=False) as folder:  # whose path is short enough for sockets
        setting = Setting(mib=1, gateways=3, tls=True, folder=folder / "all", processes=1)
        with Besieged(setting) as federation:
            found = measure(federation, 2, ATTACK, holding=4)
    assert found.correct
    assert found.grew_mib < 64
    assert max(found.besieged_s) < 60
    assert found.ended["flood RESOURCE_EXHAUSTED"] > 0  # how many depends on the machine
