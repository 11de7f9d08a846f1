"""An upload through kills of both ends and a partition; the figure is of 100 MiB, by a command."""

from __future__ import annotations

import pytest

from tests.faults.torn_upload import Report, tear


@pytest.mark.timeout(300)
def test_an_upload_that_is_cut_goes_on_and_is_counted_once(tmp_path):
    report = Report(mib=24)
    tear(report, tmp_path)
    assert (report.updates_counted, report.charges) == (1, 1)
    assert report.sent_bytes < 2 * report.update_bytes  # begun anew at each cut it would be thrice
