"""How connections are kept and how much may be under way on them: `[http2]` of every settings file.

The receiver of a stream sets its window: the orchestrator that of uploads, a gateway or an operator
that of downloads. A stream moves at most one window per round trip.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

MIB = 1 << 20
Options: TypeAlias = list[tuple[str, int]]

CONNECT_TIMEOUT_S = 5.0  # for one address
_LATER_S = 2.0  # a server waits this much longer before it asks
_RESOLVED_AGAIN_S = 2.0  # least time between two look-ups of a host that does not answer


class Http2Settings(BaseModel):
    """How connections are kept, and how much of a stream may be under way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keepalive_s: Annotated[float, Field(ge=1)] = 10.0  # silence after which a peer is asked
    ping_timeout_s: Annotated[float, Field(gt=0)] = 5.0  # that it has to answer
    window_mib: Annotated[float, Field(ge=1 / 16, le=1024)] = 0.5  # HTTP/2 knows none of 2 GiB
    """Of each stream that comes in: bandwidth times round trip, or the link is not filled."""

    def client_options(self) -> Options:
        """Return gRPC's settings of a channel.

        gRPC's own retry is off: it reported OK for uploads of which chunks were missing. What it
        calls the least backoff is the time that one try to connect has, TLS included; less than
        some round trips, and no connection ever comes about.
        """
        return [
            ("grpc.enable_retries", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", _ms(CONNECT_TIMEOUT_S)),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.dns_min_time_between_resolutions_ms", _ms(_RESOLVED_AGAIN_S)),
            ("grpc.use_local_subchannel_pool", 1),
            *self._both(self.keepalive_s),
        ]

    def server_options(self) -> Options:
        """Return gRPC's settings of a server.

        It asks only whom it has not heard for longer than a client stays silent.
        """
        return [
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.http2.ping_timeout_ms", _ms(self.ping_timeout_s)),
            *self._both(self.keepalive_s + _LATER_S),
        ]

    def _both(self, keepalive_s: float) -> Options:
        """Return those of either side.

        Frames are as long as a chunk (16 KiB ones cost a quarter more), and there is no probe of
        the line: its windows took 17 MiB for each upload.
        """
        return [
            ("grpc.keepalive_time_ms", _ms(keepalive_s)),
            ("grpc.keepalive_timeout_ms", _ms(self.ping_timeout_s)),
            ("grpc.http2.max_frame_size", (1 << 24) - 1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", round(self.window_mib * MIB)),
        ]


DEFAULT_HTTP2 = Http2Settings()


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
