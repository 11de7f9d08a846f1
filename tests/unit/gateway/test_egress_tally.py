"""What leaves is counted: every value, with the bytes that it takes, and nothing that stays."""

from __future__ import annotations

import pytest

from common.protocol import Chunk
from gateway.egress_tally import Count, Tally
from gateway.outgoing import GuardedChannel, NotInManifest, serialise
from protos.federation.v1 import gateway_pb2 as pb
from tests.unit.gateway.test_egress import DIGEST, RUN

CHUNK = "SubmitUpdateRequest.chunk"


class Wire:
    """Takes what is written to it, as a channel's call does."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def stream_unary(self, method, *, response_deserializer):
        return lambda timeout: self

    async def write(self, data: bytes) -> None:
        self.written.append(data)

    def cancel(self) -> None: ...


def test_every_value_that_is_set_counts_with_its_bytes():
    tally = Tally()
    request = pb.WatchRequest(lease="0" * 16, kept_runs=["a", RUN])
    data = serialise(request, tally=tally)
    assert tally.of("WatchRequest.lease") == Count(1, 18)
    assert tally.of("WatchRequest.kept_runs").values == 2
    assert tally.total.byte_length == len(data)


def test_fields_of_nested_messages_count_under_their_own_names():
    tally = Tally()
    key = pb.UpdateKey(run_id=RUN, round=3)
    serialise(pb.GetUploadRequest(key=key, digest=DIGEST), tally=tally)
    assert tally.of("GetUploadRequest.key.round") == Count(1, 2)
    assert tally.of("GetUploadRequest.key.run_id") == Count(1, len(RUN) + 2)


def test_what_may_not_leave_is_not_counted():
    tally = Tally()
    with pytest.raises(NotInManifest):
        serialise(pb.WatchRequest(lease="no lease"), tally=tally)
    assert tally.total == Count()


async def test_a_piece_of_an_update_counts_as_it_is_sent():
    tally, wire = Tally(), Wire()
    call = GuardedChannel(wire, tally=tally).stream_unary("Submit", response_deserializer=None)
    first = pb.SubmitUpdateRequest(header=pb.UpdateHeader(parent=DIGEST))
    async with call(first) as stream:
        await stream.send(Chunk(1 << 20, b"x" * 1000))
    assert tally.of(f"{CHUNK}.data") == Count(1, 1000)
    assert tally.of(f"{CHUNK}.offset") == Count(1, len(wire.written[1]) - 1000)
    assert tally.of("SubmitUpdateRequest.header.parent").values == 1
