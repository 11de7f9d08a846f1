"""The contract only grows: its descriptor is compared with the recorded one.

After a change that is meant: `python -m tests.golden.test_contract`.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from protos.federation.v1 import (
    audit_pb2,
    enrolment_pb2,
    gateway_pb2,
    operator_pb2,
    plan_pb2,
    weights_pb2,
)

RECORDED = Path(__file__).parent / "contract.textproto"
FILES = (weights_pb2, plan_pb2, gateway_pb2, operator_pb2, enrolment_pb2, audit_pb2)


def _contract() -> str:
    files = []
    for module in FILES:
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return text_format.MessageToString(FileDescriptorSet(file=files))


def test_the_contract_is_the_recorded_one():
    assert _contract() == RECORDED.read_text(encoding="utf-8")


def test_every_enumeration_begins_with_unspecified():
    for module in FILES:
        for enum in module.DESCRIPTOR.enum_types_by_name.values():
            assert enum.values_by_number[0].name.endswith("_UNSPECIFIED"), enum.full_name


def test_every_rpc_has_a_request_and_a_response_of_its_own():
    seen, calls = set(), 0
    for module in FILES:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                assert method.input_type.name.endswith(f"{method.name}Request")
                assert method.output_type.name.endswith(f"{method.name}Response")
                calls += 1
                seen |= {method.input_type.full_name, method.output_type.full_name}
    assert len(seen) == 2 * calls, "two calls share a message"


if __name__ == "__main__":
    RECORDED.write_text(_contract(), encoding="utf-8")
