"""The egress manifest lists what the contract has, and nothing else becomes bytes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from google.protobuf.descriptor import Descriptor

import gateway
from common.enrolment import make_request
from common.issuing import new_key
from common.protocol import RefusalReason
from common.tls import Identity, Role
from gateway.egress import MANIFEST, OPTIMIZERS, PLAN_FIELDS, REASONS
from gateway.egress_rules import EgressClass, Entry, Octets, OneOf, SigningRequest, Text
from gateway.outgoing import GuardedChannel, NotInManifest, is_nested, serialise
from protos.federation.v1 import audit_pb2, enrolment_pb2, operator_pb2, plan_pb2, weights_pb2
from protos.federation.v1 import gateway_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GatewayService"]
ENROLMENT = enrolment_pb2.DESCRIPTOR.services_by_name["EnrolmentService"]
SENT = [method.input_type for each in (SERVICE, ENROLMENT) for method in each.methods]
SENT.append(audit_pb2.GetCheckpointRequest.DESCRIPTOR)  # all of AuditService that gateways call
DIGEST, RUN = "ab" * 32, "winter-2026"
KEY = pb.UpdateKey(run_id=RUN, round=3)
CANARY = "kanarienvogel"
SITE_KEY, SITE = new_key(), Identity("acme", Role.GATEWAY, "a")
REQUEST = make_request(SITE_KEY, SITE)


def leaves(descriptor: Descriptor, path: str) -> Iterator[str]:
    """Yield the path of every field below a message, down to those that hold a value."""
    for field in descriptor.fields:
        here = f"{path}.{field.name}"
        if is_nested(field):
            yield from leaves(field.message_type, here)
        else:
            yield here


def fields_of_requests() -> set[str]:
    return {path for message in SENT for path in leaves(message, message.name)}


def test_every_field_that_a_gateway_can_send_has_an_entry():
    assert fields_of_requests() - set(MANIFEST) == set()


def test_every_entry_has_a_field():
    assert set(MANIFEST) - fields_of_requests() == set()


def test_every_entry_stands_under_its_own_name_and_says_why():
    assert all(field == entry.field for field, entry in MANIFEST.items())
    assert all(len(entry.why) > 20 and entry.rule.words for entry in MANIFEST.values())


def test_a_field_that_is_new_in_the_contract_is_missed():
    fewer = set(MANIFEST) - {"SubmitUpdateRequest.header.ledger_head.hash"}
    assert fields_of_requests() - fewer == {"SubmitUpdateRequest.header.ledger_head.hash"}


@pytest.mark.parametrize(
    ("enum", "rule"),
    [(pb.RefusalReason, REASONS), (plan_pb2.Optimizer, OPTIMIZERS)],
)
def test_enumerations_are_closed_lists_of_their_own(enum, rule):
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    assert {prefix + name for name in rule.values} == set(enum.keys()[1:])


def test_every_reason_of_ours_may_leave():
    assert {reason.name for reason in RefusalReason} == set(REASONS.values)


def test_text_leaves_only_where_the_manifest_gives_a_pattern():
    """And bytes only as an update's, a token's or a signing request's."""
    for message in SENT:
        for path, kind in kinds(message, message.name):
            rule = MANIFEST[path].rule
            assert kind != "string" or isinstance(rule, Text | OneOf), path
            assert (kind == "bytes") == isinstance(rule, Octets | SigningRequest), path


def kinds(descriptor: Descriptor, path: str) -> Iterator[tuple[str, str]]:
    for field in descriptor.fields:
        here = f"{path}.{field.name}"
        if is_nested(field):
            yield from kinds(field.message_type, here)
        else:
            names = {field.TYPE_STRING: "string", field.TYPE_BYTES: "bytes"}
            yield here, names.get(field.type, "other")


def fitting() -> list:
    """One message of each kind that a gateway sends, every field set."""
    how = plan_pb2.Hyperparameters(
        learning_rate=1.0,
        clipping_norm=0.5,
        noise_multiplier=2.0,
        sampling_rate=0.1,
        local_steps=3,
        optimizer=plan_pb2.OPTIMIZER_ADAMW,
        momentum=0.9,
        weight_decay=0.1,
        warmup_steps=1,
        adaptive_clipping=plan_pb2.AdaptiveClipping(
            smallest=0.1, largest=2.0, target_quantile=0.5, rate=0.2, count_noise=3.0
        ),
    )
    refusal = pb.Refusal(reason=pb.REFUSAL_REASON_DELTA, field="privacy.delta")
    body = weights_pb2.TransferHeader(digest=DIGEST, byte_length=9, offset=1)
    head = pb.LedgerHead(sequence=4, hash=DIGEST, insecure_deterministic=True)
    header = pb.UpdateHeader(
        key=KEY, plan_digest=DIGEST, parent=DIGEST, body=body, ledger_head=head
    )
    task = pb.InstalledTask(name="My_task-1", digest=DIGEST)
    answer = {"run_id": RUN, "plan_digest": DIGEST}
    effective = pb.Effective(hyperparameters=how, insecure_deterministic=True)
    chunk = weights_pb2.Chunk(offset=1, data=b"12345678")
    return [
        pb.RegisterRequest(protocol_version=1, software_version="0.1.0", tasks=[task, task]),
        pb.GetConfigRequest(run_id=RUN),
        pb.AcceptPlanRequest(effective=effective, signature=b"7" * 72, **answer),
        pb.AcceptPlanRequest(refusal=refusal, **answer),
        pb.WatchRequest(lease="ab" * 16, kept_runs=[RUN, "summer"]),
        pb.FetchWeightsRequest(digest=DIGEST, offset=3),
        pb.GetUploadRequest(key=KEY, digest=DIGEST),
        pb.SubmitUpdateRequest(header=header),
        pb.SubmitUpdateRequest(chunk=chunk),
        pb.SubmitUpdateRequest(decline=pb.Decline(key=KEY, refusal=refusal)),
        pb.GetLedgerHeadRequest(insecure_deterministic=True),
        enrolment_pb2.EnrolRequest(secret=bytes(16), request=REQUEST),
        enrolment_pb2.RenewRequest(request=REQUEST),
        audit_pb2.GetCheckpointRequest(after=7),
    ]


def test_every_listed_field_passes_unchanged():
    assert {path for each in fitting() for path in populated(each)} == set(MANIFEST)
    for message in fitting():
        assert type(message).FromString(serialise(message)) == message


def populated(message, path: str = "") -> Iterator[str]:
    path = path or message.DESCRIPTOR.name
    for field, value in message.ListFields():
        for each in value if field.is_repeated else (value,):
            here = f"{path}.{field.name}"
            yield from populated(each, here) if is_nested(field) else (here,)


@pytest.mark.parametrize("path", sorted(MANIFEST))
def test_without_its_entry_a_field_does_not_leave(path):
    """As a field would that is new in the contract and was not thought of."""
    fewer = {field: entry for field, entry in MANIFEST.items() if field != path}
    for message in fitting():
        if path in populated(message):
            with pytest.raises(NotInManifest, match="was not sent") as caught:
                serialise(message, fewer)
            assert caught.value.field in {path, message.DESCRIPTOR.name}


def talkative() -> bytes:
    """A signing request with something more to say."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CANARY)])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(SITE.uri)])
    builder = x509.CertificateSigningRequestBuilder(subject).add_extension(names, critical=True)
    return builder.sign(SITE_KEY, SHA256()).public_bytes(Encoding.DER)


SPILLS = {
    "EnrolRequest.secret": enrolment_pb2.EnrolRequest(secret=CANARY.encode() * 2),
    "EnrolRequest.request": enrolment_pb2.EnrolRequest(request=CANARY.encode()),
    "RenewRequest.request": enrolment_pb2.RenewRequest(request=talkative()),
    "RegisterRequest.software_version": pb.RegisterRequest(software_version=f"0.1.0+{CANARY}"),
    "RegisterRequest.tasks.name": pb.RegisterRequest(
        tasks=[pb.InstalledTask(name="ner"), pb.InstalledTask(name=f"{CANARY} has gout")]
    ),
    "RegisterRequest.tasks.digest": pb.RegisterRequest(tasks=[pb.InstalledTask(digest=CANARY)]),
    "GetConfigRequest.run_id": pb.GetConfigRequest(run_id=f"{CANARY}: list index out of range"),
    "AcceptPlanRequest.plan_digest": pb.AcceptPlanRequest(plan_digest=DIGEST + "\n"),
    "AcceptPlanRequest.refusal.reason": pb.AcceptPlanRequest(refusal=pb.Refusal(reason=19450508)),
    "AcceptPlanRequest.refusal.field": pb.AcceptPlanRequest(refusal=pb.Refusal(field=CANARY)),
    "WatchRequest.lease": pb.WatchRequest(lease=CANARY),
    "WatchRequest.kept_runs": pb.WatchRequest(kept_runs=[RUN, f"/data/{CANARY}.jsonl"]),
    "GetUploadRequest.digest": pb.GetUploadRequest(digest=DIGEST.upper()),
    "SubmitUpdateRequest.decline.refusal.field": pb.SubmitUpdateRequest(
        decline=pb.Decline(refusal=pb.Refusal(field=f"could not convert {CANARY}"))
    ),
    "SubmitUpdateRequest.chunk.data": pb.SubmitUpdateRequest(
        chunk=weights_pb2.Chunk(data=bytes((1 << 20) + 1))
    ),
    "SubmitUpdateRequest.header.ledger_head.sequence": pb.SubmitUpdateRequest(
        header=pb.UpdateHeader(ledger_head=pb.LedgerHead(sequence=1 << 63))
    ),
    "AcceptPlanRequest.effective.hyperparameters.learning_rate": pb.AcceptPlanRequest(
        effective=pb.Effective(hyperparameters=plan_pb2.Hyperparameters(learning_rate=float("nan")))
    ),
}


@pytest.mark.parametrize("path", sorted(SPILLS))
def test_what_does_not_fit_its_field_is_refused_and_not_repeated(path):
    with pytest.raises(NotInManifest) as caught:
        serialise(SPILLS[path])
    assert caught.value.field == path
    assert CANARY not in str(caught.value)


def unknown(message: bytes, field: int, value: bytes) -> bytes:
    return message + bytes([field << 3 | 2, len(value)]) + value


def test_a_field_that_the_contract_does_not_know_is_refused_at_any_depth():
    inner = unknown(pb.Refusal(reason=pb.REFUSAL_REASON_FAILED).SerializeToString(), 14, b"gout")
    refusal = pb.Refusal.FromString(inner)
    decline = pb.SubmitUpdateRequest(decline=pb.Decline(key=KEY, refusal=refusal))
    assert b"gout" in decline.SerializeToString()  # it would leave
    with pytest.raises(NotInManifest, match="refusal holds a field that the contract does not"):
        serialise(decline)


@pytest.mark.parametrize(
    "message",
    [
        operator_pb2.UploadWeightsRequest(chunk=weights_pb2.Chunk(data=b"gout")),
        operator_pb2.ListRunsRequest(),
        pb.WatchResponse(run_id=RUN),
        pb.Refusal(field="participants"),
    ],
)
def test_only_what_a_gateway_asks_is_sent(message):
    with pytest.raises(NotInManifest, match="is not a message that a gateway sends"):
        serialise(message)


def test_a_map_does_not_pass_unlisted():
    name = Entry("Plan.name", EgressClass.PUBLIC, Text("x", "x"), "")
    plan = plan_pb2.Plan(name="x")
    assert serialise(plan, {"Plan.name": name}) == plan.SerializeToString()
    plan.profiles[CANARY].learning_rate = 1.0
    with pytest.raises(NotInManifest, match=r"Plan\.profiles is not in the egress manifest"):
        serialise(plan, {"Plan.name": name})


def imports(path: Path) -> set[str]:
    """Return what a module imports when it runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    nodes = list(ast.walk(tree))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {*plain, *(node.module or "" for node in nodes if isinstance(node, ast.ImportFrom))}


NETWORKS = ("grpc", "socket", "ssl", "http", "urllib.request", "requests", "httpx", "aiohttp")


def test_one_module_of_the_gateway_has_the_stub_and_none_another_way_out():
    modules = {path.stem: imports(path) for path in Path(gateway.__path__[0]).rglob("*.py")}
    assert len(modules) > 30

    def importers(*packages: str) -> set[str]:
        below = tuple(f"{package}." for package in packages)
        return {
            name
            for name, found in modules.items()
            if any(each in packages or each.startswith(below) for each in found)
        }

    assert importers(*NETWORKS) == set()
    assert importers("protos") == {"client"}
    assert importers("asyncio") >= {"agent"}  # the search finds what is there


def test_the_client_uses_its_channel_only_through_the_guard():
    source = (Path(gateway.__path__[0]) / "client.py").read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    guards = [
        n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "GuardedChannel"
    ]
    used = [n for n in nodes if isinstance(n, ast.Name) and n.id == "channel"]
    assert used == [guards[0].args[0]]  # and in no other place
    assert not [n for n in nodes if isinstance(n, ast.Attribute) and n.attr.startswith("_channel")]
    assert not hasattr(GuardedChannel, "stream_stream")
    assert PLAN_FIELDS.admits("task.labels")
