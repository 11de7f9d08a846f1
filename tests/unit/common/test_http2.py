"""How connections are kept, and the window of what comes in."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from common.http2 import CONNECT_TIMEOUT_S, Http2Settings

SIDES = [Http2Settings.client_options, Http2Settings.server_options]


@pytest.mark.parametrize("options", SIDES)
def test_either_side_takes_its_window_and_no_probe_changes_it(options):
    found = dict(options(Http2Settings(window_mib=4)))
    assert found["grpc.http2.lookahead_bytes"] == 4 << 20
    assert found["grpc.http2.bdp_probe"] == 0


@pytest.mark.parametrize("options", SIDES)
def test_either_side_waits_for_an_answer_as_long_as_it_is_told(options):
    found = dict(options(Http2Settings(keepalive_s=2.5, ping_timeout_s=0.5)))
    assert found["grpc.keepalive_timeout_ms"] == 500


def test_a_server_asks_only_whom_it_has_not_heard_for_longer_than_clients_are_silent():
    settings = Http2Settings(keepalive_s=2.5)
    silence = dict(settings.client_options())["grpc.keepalive_time_ms"]
    assert silence == 2500
    assert dict(settings.server_options())["grpc.keepalive_time_ms"] > silence


def test_a_try_to_connect_outlasts_some_round_trips_whatever_the_wait_before_it():
    found = dict(Http2Settings().client_options())
    assert found["grpc.min_reconnect_backoff_ms"] == 1000 * CONNECT_TIMEOUT_S
    assert found["grpc.initial_reconnect_backoff_ms"] < found["grpc.min_reconnect_backoff_ms"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_mib": 0},
        {"window_mib": 2048},  # HTTP/2 ends below 2 GiB
        {"keepalive_s": 0.5},
        {"ping_timeout_s": 0},
        {"window_bytes": 1 << 20},
    ],
)
def test_what_cannot_work_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Http2Settings(**wrong)
