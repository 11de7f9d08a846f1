"""What is packed by hand is what protobuf packs; what is read by hand is what protobuf reads."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.frames import pack, packing, read, reading
from common.protocol import Chunk
from protos.federation.v1 import gateway_pb2, operator_pb2, weights_pb2

MESSAGES = (
    gateway_pb2.SubmitUpdateRequest,
    gateway_pb2.FetchWeightsResponse,
    operator_pb2.UploadWeightsRequest,
    operator_pb2.OperatorServiceFetchWeightsResponse,
)
CHUNKS = st.builds(Chunk, st.integers(0, 2**64 - 1), st.binary(max_size=300))


def encoded(message, chunk: Chunk) -> bytes:
    inner = weights_pb2.Chunk(offset=chunk.offset, data=bytes(chunk.data))
    return message(chunk=inner).SerializeToString()


@pytest.mark.parametrize("message", MESSAGES)
@given(chunk=CHUNKS)
@example(chunk=Chunk(0, b""))
@example(chunk=Chunk(0, b"x"))
@example(chunk=Chunk(1 << 20, bytes(1 << 20)))
@example(chunk=Chunk(1, bytes((1 << 14) - 1)))
@example(chunk=Chunk(1, bytes(1 << 14)))
def test_a_frame_is_protobufs_own_encoding(message, chunk):
    assert pack(chunk) == encoded(message, chunk)


@given(CHUNKS.filter(lambda chunk: len(chunk.data) > 0))
def test_a_frame_is_read_without_a_copy(chunk):
    frame = pack(chunk)
    found = read(frame)
    assert found is not None
    assert (found.offset, found.data) == (chunk.offset, chunk.data)
    assert found.data.obj is frame


@given(st.binary(max_size=60))
@example(b"\x12\x02\x12\x00")  # empty data that is written all the same
@example(b"\x12\x80\x00")
@example(b"\x12" + b"\xff" * 12)
def test_bytes_that_are_read_are_read_as_protobuf_does(data):
    found = read(data)
    if found is not None:
        message = gateway_pb2.SubmitUpdateRequest.FromString(data)
        assert message.WhichOneof("part") == "chunk"
        assert (message.chunk.offset, message.chunk.data) == (found.offset, found.data)


@given(CHUNKS, st.integers(0, 40), st.integers(0, 255))
def test_a_damaged_frame_is_read_as_protobuf_does_or_not_at_all(chunk, place, byte):
    frame = bytearray(pack(chunk))
    frame[place % len(frame)] = byte
    test_bytes_that_are_read_are_read_as_protobuf_does.hypothesis.inner_test(bytes(frame))


def test_other_messages_are_left_to_protobuf():
    header = gateway_pb2.SubmitUpdateRequest(header=gateway_pb2.UpdateHeader(parent="p"))
    data = header.SerializeToString()
    assert reading("/s/SubmitUpdate", type(header).FromString)(data) == header
    assert packing("/s/SubmitUpdate", type(header).SerializeToString)(header) == data
