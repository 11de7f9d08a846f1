"""The benchmark of the page on a short run: every message is counted."""

from __future__ import annotations

import pytest

from benchmarks import browser
from benchmarks.page import Found, measure


@pytest.mark.skipif(
    not (browser.CHROMIUM and browser.DRIVER),
    reason="needs Debian's packages chromium and chromium-driver",
)
async def test_a_short_run_is_followed_to_its_end(tmp_path):
    found = await measure(tmp_path, rounds=3, gateways=3)
    assert found.work_ms
    assert all(0 < each < 1000 for each in found.work_ms)


def test_the_line_has_median_and_tail():
    line = Found(tuple(float(n) for n in range(1, 102)), 1).line()
    assert (line["messages"], line["work_median_ms"]) == (101, 51.0)
    assert (line["work_p99_ms"], line["work_max_ms"], line["long_tasks"]) == (100.0, 101.0, 1)
