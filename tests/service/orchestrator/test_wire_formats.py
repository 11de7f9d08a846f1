"""Rounds in each wire format over gRPC: summed exactly, refused in any other, staged, resumed."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from common.errors import FederationError
from common.plan import Rounds, ServerOptimizer, Weighting
from common.protocol import Body, Chunk, RunState
from common.randomness import KEY_BYTES, RandomStream
from common.transfer import digest_of
from common.update_form import Update, UpdateForm
from common.weights import Layout, Weights
from common.wire_formats import WireFormat
from orchestrator.aggregation import BLOCK
from orchestrator.rpc_errors import DETAILS_KEY
from orchestrator.staging import Slot, Staging
from tests.fakes import INITIAL, LAYOUT, FakeGateway, chunks, difference, plan_of, until

ROUNDS = Rounds(count=1, maximum=1, quorum=1, deadline_s=60.0)
PAIRS = [(sent, agreed) for sent in WireFormat for agreed in WireFormat if sent != agreed]


def update(wire_format: WireFormat, gateway: str, layout: Layout = LAYOUT) -> Update:
    values = difference(gateway, 1, layout.size)
    key = digest_of(gateway.encode()).encode()[:KEY_BYTES]
    return Update.of(UpdateForm(layout, wire_format), values, RandomStream(key))


def plan_in(wire_format: WireFormat, **changes):
    plain = {"server": ServerOptimizer(), "weighting": Weighting.EQUAL, "rounds": ROUNDS}
    return plan_of("a", "b", wire_format=wire_format, **(plain | changes))


async def send(gateway: FakeGateway, data: bytes):
    header = await gateway.header("r", 1, INITIAL.digest, data)
    return await gateway.client.submit_update(header, chunks(data))


async def model(gateway: FakeGateway, status) -> np.ndarray:
    data = await gateway.fetch(Body(status.weights, LAYOUT.byte_length))
    return Weights.from_bytes(data, LAYOUT).values


@pytest.mark.parametrize("wire_format", WireFormat)
@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_the_model_is_the_mean_of_what_the_bytes_stand_for(federation, wire_format, order):
    async with federation.serving():
        operator = await federation.start(plan_in(wire_format))
        by_name = dict(zip("ab", await federation.gateways("a", "b"), strict=True))
        for gateway in by_name.values():
            await gateway.accept("r")
        for name in order:
            await send(by_name[name], update(wire_format, name).to_bytes())
        status = await until(operator, lambda s: s.state is RunState.COMPLETED)
        both = [update(wire_format, name).values.astype(np.float64) for name in "ab"]
        steps = sum(np.rint(values / 2 * 2.0**40) for values in both)
        expected = (INITIAL.values + steps * 2.0**-40).astype(np.float32)
        assert (await model(by_name["a"], status)).tobytes() == expected.tobytes()
        length = UpdateForm(LAYOUT, wire_format).byte_length
        assert status.bytes_received == 2 * length


@pytest.mark.parametrize(("sent", "agreed"), PAIRS)
async def test_another_format_is_refused_by_name_and_the_round_goes_on(
    federation, lawless, sent, agreed
):
    async with federation.serving():
        operator = await federation.start(plan_in(agreed))
        a, b = await federation.gateways("a", "b", kind=lawless)
        for gateway in (a, b):
            await gateway.accept("r")
        with pytest.raises(FederationError) as caught:
            await send(a, update(sent, "a").to_bytes())
        error, status, info = caught.value.__cause__, Status(), ErrorInfo()
        status.ParseFromString(dict(error.trailing_metadata())[DETAILS_KEY])
        status.details[0].Unpack(info)
        assert (error.code(), info.reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "ElementTypeMismatch",
        )
        await send(b, update(agreed, "b").to_bytes())
        status = await until(operator, lambda s: s.state is RunState.COMPLETED)
        assert [gateway.rounds_counted for gateway in status.gateways] == [0, 1]


WIDE = Layout.of({"w": (2 * BLOCK + 300,)})
SLOT = Slot("r", 1, "a")


@pytest.mark.parametrize("wire_format", WireFormat)
@pytest.mark.parametrize("cut", [0, 501, 200_001])
def test_a_staged_update_is_decoded_block_by_block(tmp_path, wire_format, cut):
    sent = update(wire_format, "a", WIDE)
    data = sent.to_bytes()
    cut = min(cut, len(data) - 1)
    pieces = [
        Chunk(cut + start, data[cut:][start : start + 50_001])
        for start in range(0, len(data) - cut, 50_001)
    ]
    with Staging(tmp_path).receiving(
        SLOT, Body(sent.digest, len(data)), sent.form, limit=1 << 20
    ) as torn:
        torn.take(Chunk(0, data[:cut]))
    staging = Staging(tmp_path)
    body = Body(sent.digest, len(data), cut)
    with staging.receiving(SLOT, body, sent.form, limit=1 << 20) as upload:
        upload.take_all(pieces)
        values = upload.checked()
        found = [values.read(slice(at, at + BLOCK)) for at in range(0, WIDE.size, BLOCK)]
        assert np.concatenate(found).tobytes() == sent.values.tobytes()
        staging.let_go(upload)
