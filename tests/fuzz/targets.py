"""The registry: every place where bytes come in that another party wrote, or a file holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from grpc.aio import Metadata

from cli.config import OperatorConfig
from cli.record_proof import Check, Witness, read_export, read_heads
from common import audit, wire
from common.audit import EMPTY as START
from common.audit import ORCHESTRATOR, Action, Entry, line_after
from common.channel import DETAILS_KEY, error_of
from common.config import load_settings, read_toml
from common.ids import GatewayId, PlanId, RunId, WeightsId
from common.lineage import (
    Included,
    Origin,
    RoundStatement,
    Trained,
    check_lineage,
    lineage_from,
    sign,
)
from common.protocol import Body
from common.randomness import RandomStream
from common.run_order import order_from_text, order_to_text
from common.tls import identity_of
from common.transfer import digest_of
from common.update_form import Update, UpdateForm
from common.weights import Weights
from common.wire_formats import WireFormat
from gateway.config import GatewayConfig
from gateway.identity import gateway_name
from gateway.ledger_desk import verify_export
from gateway.records import EMPTY, Kind, Record, after
from gateway.trust import read_plan_keys
from orchestrator.auth import check_caller
from orchestrator.config import OrchestratorConfig
from orchestrator.running_check import RunningCheck
from tasks.ner.sentences import read_file
from tasks.plan_file import draft_plan
from tests.fakes import EFFECTIVE, INITIAL, LAYOUT, plan_of
from tests.fuzz import messages
from tests.fuzz.target import Target, of_file
from tests.on_record import KEY
from tests.signing import order

TINY = "tests/tiny_task.py:TASK"
DELTA = 1e-5
DEEP = '{"statement":' * 5000
GATEWAY_TOML = """address = "127.0.0.1:8443"
[tls]
authority = "ca.pem"
certificate = "cert.pem"
key = "key.pem"
[trust]
plan_keys = "plan-keys"
[task]
labels = ["Disease"]
[data]
corpus = "letters"
[policy]
epsilon_budget = 8.0
"""
SERVED_TOML = """federation = "acme"
[tls]
authority = "ca.pem"
certificate = "cert.pem"
key = "key.pem"
[limits]
requests_per_s = 5.0
"""
OPERATOR_TOML = """address = "127.0.0.1:8443"
[tls]
authority = "ca.pem"
certificate = "cert.pem"
key = "key.pem"
"""
PLAN_TOML = f"""name = "tiny"
[task]
reference = "{TINY}"
labels = ["a", "b"]
[rounds]
count = 2
quorum = 1
deadline_s = 60.0
[privacy]
delta = 1e-5
target_epsilon = 8.0
[hyperparameters]
learning_rate = 0.1
clipping_norm = 1.0
noise_multiplier = 1.0
sampling_rate = 0.1
local_steps = 1
[[participants]]
gateway = "a"
declared_units = 100
"""
EVENT = {
    "mechanism": "poisson_gaussian",
    "noise_multiplier": 1.0,
    "sampling_rate": 0.1,
    "steps": 5,
}
CHARGE = {
    "gateway": "a",
    "run": "r",
    "parent": "0" * 64,
    "plan": "1" * 64,
    "effective": "{}",
    **EVENT,
    "data_set": "d",
    "data_digest": "2" * 64,
    "unit": "example",
    "relation": "add_or_remove_one",
    "clipping_norm": 1.0,
    "delta": 1e-5,
    "round": 1,
    "mark": "m",
    "insecure_deterministic": False,
}
STATED = {"run": "q", "round": 2, "data_set": "d", "unit": "example", **EVENT}
HEAD = {"sequence": 1, "hash": "3" * 64}
TAKEN = after(EMPTY, Kind.CHARGE, {**CHARGE, "round": 3}).to_json()
MERGE = {"ours": HEAD, "theirs": None, "orchestrator": HEAD, "taken": [TAKEN], "assumed": [STATED]}
FACTS = json.dumps([["charge", CHARGE], ["merge", MERGE]])


def _identity(data: bytes) -> None:
    """Ask who calls, as the text of the certificate's names has it."""
    identity_of(data.decode(errors="replace"))
    connection = {"ssl_tls_version": [b"TLSv1.3"], "x509_subject_alternative_name": [data]}
    check_caller(connection, "/federation.v1.GatewayService/Register", "acme")


def _update(wire_format: WireFormat) -> Target:
    form = UpdateForm(LAYOUT, wire_format)

    def run(data: bytes) -> None:
        Update.from_bytes(data, form).values.sum()

    whole = Update.of(form, INITIAL.values, RandomStream(bytes(32))).to_bytes()
    return Target(
        f"update_{wire_format}", run, (whole, whole[:-1], form.header, INITIAL.to_bytes())
    )


def _arriving_update(data: bytes) -> None:
    """Check an update as the orchestrator does: piece by piece, from what it has staged."""
    form = UpdateForm(LAYOUT)
    body = Body(digest_of(data), len(data))
    check = RunningCheck(body, form)
    for begin in range(0, len(data), 32):
        check.see(data[begin : begin + 32])
    check.finish(lambda offset, length: memoryview(data)[offset : offset + length])


def _plan_file(path: Path) -> None:
    """Read a plan's file, unless it names other code than ours, which would be run.

    Nor one that asks for the least noise: the search takes what the accountant takes.
    """
    fields = read_toml(path)
    task, given = fields.get("task"), fields.get("hyperparameters")
    is_tiny = isinstance(task, dict) and task.get("reference") == TINY
    if is_tiny and isinstance(given, dict) and "noise_multiplier" in given:
        draft_plan(path)


def _export(data: bytes) -> Iterable[Record]:
    head = EMPTY
    for kind, facts in json.loads(data):
        record = after(head, kind, facts)
        head = record.head
        yield record


def _ledger_facts(path: Path) -> None:
    """Verify an export whose chain is whole and whose facts are anything."""
    try:
        records = list(_export(path.read_bytes()))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return  # not of this form: the other target has it
    path.write_text("\n".join(json.dumps(record.to_json()) for record in records))
    verify_export(path, DELTA)


def _status(data: bytes) -> None:
    """Read what a server says with a refusal."""
    trailers = Metadata((DETAILS_KEY, data))
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    error_of(grpc.aio.AioRpcError(code, Metadata(), trailers, details="x"), "here:1")


def _whole_export() -> str:
    records = [after(EMPTY, Kind.CHARGE, CHARGE)]
    return "\n".join(json.dumps(record.to_json()) for record in records)


def _lineage(data: bytes) -> None:
    """Check a lineage of which any statement may be anything."""
    check_lineage(lineage_from(data), Origin("acme", RunId("r"), PlanId("7" * 64), "7" * 64))


def _signed_lineage() -> bytes:
    plan, some = plan_of("a"), WeightsId("7" * 64)
    statement = RoundStatement(
        federation="acme",
        run=RunId("r"),
        plan=PlanId(some),
        round=1,
        rounds=3,
        attempt=1,
        parent=some,
        updates=(Included(GatewayId("a"), some, 100),),
        updates_kept=False,
        total_weight=100,
        norm_bound=None,
        strategy="fed_avg",
        server=plan.server,
        software="1",
        privacy=plan.privacy,
        trained=(Trained(EFFECTIVE, {GatewayId("a"): 1}),),
        optimizer_state=None,
        weights=some,
        weights_sha256=some,
        previous="",
    )
    return sign(KEY, statement).to_text() + b"\n"


def _order(data: bytes) -> None:
    """Read an order that somebody gives to the page."""
    wire.signature_from_proto(order_from_text(data.decode("utf-8", "replace")))


def _audit_export(path: Path) -> None:
    """Verify an exported log."""
    checkpoint, lines = read_export(path)
    check = Check((Witness(checkpoint),))
    for line in lines:
        check.see(line)
    check.finish()


def _whole_log() -> str:
    """Return a log of one record, as it is exported."""
    entry = Entry(ORCHESTRATOR, Action.START_PROCESS, {})
    line = line_after(START, entry, at="2026-01-01", salt="0" * 32)
    checkpoint = audit.sign(KEY, "acme", line.head, "2026-01-01")
    return "".join(f"{each.to_text().decode()}\n" for each in (checkpoint, line))


def certificate(uri: str) -> str:
    """Return a certificate that names `uri`; what it is signed with is always the same."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    uris = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(1))
    signed = builder.add_extension(uris, critical=False).sign(key, None)
    return signed.public_bytes(Encoding.PEM).decode()


JSONL = '{"text": "Mr Gray", "tags": "O B-Person", "site": "s", "split": "dev", "person": ["p"]}\n'
CONLL = "-DOCSTART- O\n\nMr\tO\nGray\tB-Person\nLee\tI-Person\n\nx O\n"
URIS = ("fed://acme/gateway/a", "fed://[", "fed://acme]/operator/b", "urn:x", "fed://acme/gateway/")

TARGETS: tuple[Target, ...] = (
    *messages.targets(),
    Target("chunk", messages.chunk_as_protobuf_reads_it, messages.frame_seeds()),
    Target("plan", wire.plan_from_bytes, (messages.PLAN,)),
    Target("order", _order, (order_to_text(*order("r", plan_of("a"))).encode(),)),
    Target("identity", _identity, tuple(uri.encode() for uri in URIS)),
    Target("status", _status, (b"", b"\x08\x08\x12\x01x\x1a\x02\x0a\x00")),
    Target("weights", lambda data: Weights.from_bytes(data, LAYOUT), (INITIAL.to_bytes(),)),
    *map(_update, WireFormat),
    Target("arriving_update", _arriving_update, (INITIAL.to_bytes(),)),
    of_file("plan.toml", ".toml", _plan_file, PLAN_TOML),
    of_file("gateway.toml", ".toml", partial(load_settings, GatewayConfig), GATEWAY_TOML),
    of_file("orchestrator.toml", ".toml", partial(load_settings, OrchestratorConfig), SERVED_TOML),
    of_file("operator.toml", ".toml", partial(load_settings, OperatorConfig), OPERATOR_TOML),
    of_file("certificate", ".pem", gateway_name, certificate("fed://acme/gateway/a")),
    of_file("jsonl", ".jsonl", read_file, JSONL, JSONL * 3),
    of_file("conll", ".conll", read_file, CONLL),
    of_file("ledger_export", ".jsonl", lambda p: verify_export(p, DELTA), _whole_export()),
    of_file("ledger_facts", ".jsonl", _ledger_facts, FACTS),
    Target("lineage", _lineage, (_signed_lineage(), DEEP.encode())),
    of_file("audit_export", ".jsonl", _audit_export, _whole_log(), DEEP),
    of_file("audit_heads", ".jsonl", read_heads, _whole_log().partition("\n")[0] + "\n", DEEP),
    of_file("plan_keys", "", read_plan_keys, f"olga ed25519 {'7' * 64}  # the operator\n"),
)


def named(name: str) -> Target:
    """Return the target of that name."""
    return next(target for target in TARGETS if target.name == name)
