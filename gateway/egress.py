"""The egress manifest: every field that may leave a gateway, its class, and what it may hold.

`gateway.outgoing` lets nothing else pass, and `fedgate-gateway egress` prints this list. A field
that is new in the contract stays at home, and fails the build, until it is listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from common.enrolment import SECRET_BYTES
from common.hyperparameters import Hyperparameters
from common.ids import DIGEST_PATTERN, NAME_PATTERN
from common.transfer import CHUNK_BYTES
from gateway.egress_rules import (
    Aside,
    EgressClass,
    Entry,
    Finite,
    Flag,
    Octets,
    OneOf,
    Rule,
    SigningRequest,
    Text,
    Whole,
)

Manifest: TypeAlias = Mapping[str, Entry]

DP, PUBLIC = EgressClass.DP, EgressClass.PUBLIC
OPERATIONAL, SEALED = EgressClass.OPERATIONAL, EgressClass.SEALED

DIGEST = Text(DIGEST_PATTERN, "64 hexadecimal digits")
NAME = Text(NAME_PATTERN, "a name: at most 63 lower-case letters, digits, dots and hyphens")
TASK_NAME = Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "a name: at most 100 letters, digits, . _ -")
VERSION = Text(
    r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}((a|b|rc|\.post|\.dev)[0-9]{1,6}){0,3}",
    "a version without a local part, such as 0.1.0",
)
LEASE = Text(r"[0-9a-f]{16,64}", "16 to 64 hexadecimal digits")
ROUND, LENGTH, FLAG, NUMBER = Whole((1 << 31) - 1), Whole(1 << 36), Flag(), Finite()
SEQUENCE = Whole((1 << 62) - 1)
REASONS = OneOf(
    (
        *("NOT_INVITED", "OUTSIDE_BOUNDS", "NOISE_FLOOR", "EPSILON_BUDGET", "TARGET_EPSILON"),
        *("TASK_MISMATCH", "DATA_UNFIT", "EQUIVOCATION", "NOT_REPEATABLE", "DELTA", "FAILED"),
        *("LEDGER_ROLLED_BACK", "KEPT_UPDATES", "PLAN_UNTRUSTED", "PLAN_SIGNATURE", "PAUSED"),
    )
)
PLAN_FIELDS = OneOf(
    (
        *("participants", "privacy.unit", "privacy.delta", "privacy.target_epsilon"),
        *("rounds.count", "keep_updates"),
        *("task.name", "task.digest", "task.labels", "task.layout"),
        *Hyperparameters.model_fields,
    )
)
OPTIMIZERS = OneOf(("SGD", "ADAMW"))

_RUN = Entry(
    "run_id", PUBLIC, NAME, "The run's name, which its operator chose before any data were read."
)
_PLAN = Entry(
    "plan_digest", PUBLIC, DIGEST, "Names the plan, which the orchestrator itself has sent."
)
_KEY = (
    _RUN,
    Entry("round", OPERATIONAL, ROUND, "The round's number, as the orchestrator gave it."),
)
_REFUSAL = (
    Entry(
        "reason",
        OPERATIONAL,
        REASONS,
        "One word of a closed list; the sentence stays in this gateway's log. PAUSED says that "
        "people of the site have paused it, and all others but FAILED and DATA_UNFIT follow from "
        "the plan, the settings and the ledger. These two say that reading "
        "the data or training did not succeed, that the data are not those that were charged or "
        "were charged under another unit, or that they do not name the plan's unit in every line, "
        "and not why: an example that makes the task fail shows as one such word.",
    ),
    Entry(
        "field",
        OPERATIONAL,
        PLAN_FIELDS,
        "The field of the plan that was refused; decided before any data are read.",
    ),
)
_BODY = (
    Entry("digest", DP, DIGEST, "Names the noised update: computed from its bytes alone."),
    Entry(
        "byte_length",
        PUBLIC,
        LENGTH,
        "How long the update is: fixed by the plan's layout and wire format.",
    ),
    Entry("offset", OPERATIONAL, LENGTH, "Where a broken transfer goes on."),
)
_HEAD = (
    Entry(
        "sequence",
        OPERATIONAL,
        SEQUENCE,
        "How many records the ledger has: rounds charged, offers refused, merges. It counts "
        "rounds, never examples.",
    ),
    Entry(
        "hash",
        SEALED,
        DIGEST,
        "SHA-256 over the ledger's records. These hold values of plans, digests of published "
        "weights, clipping norms (made of noised counts where they adapt), the data set's name, a "
        "digest of the data under a 256-bit key that never leaves, and 256 random bits for each "
        "charge, but for those made before the ledger was a chain. Without the key nobody can tell "
        "by the hash which data it covers, not even by trying.",
    ),
    Entry("insecure_deterministic", PUBLIC, FLAG, "Which of the two ledgers: private or seeded."),
)
_SIGNING_REQUEST = Entry(
    "request",
    PUBLIC,
    SigningRequest(),
    "The gateway's name, a public key that is drawn at random, and its signature.",
)
_HOW = "it comes from the plan and this gateway's settings, before any data are read."
_OF_VALUE: Mapping[str, tuple[Rule, str]] = {
    "learning_rate": (NUMBER, "Learning rate"),
    "clipping_norm": (NUMBER, "Clipping norm"),
    "noise_multiplier": (NUMBER, "Noise over the clipping norm"),
    "sampling_rate": (NUMBER, "Probability that an example is in a batch"),
    "local_steps": (ROUND, "Steps in a round"),
    "optimizer": (OPTIMIZERS, "Optimizer"),
    "momentum": (NUMBER, "Momentum"),
    "weight_decay": (NUMBER, "Weight decay"),
    "warmup_steps": (ROUND, "Steps of warm-up"),
    "adaptive_clipping.smallest": (NUMBER, "Smallest clipping norm"),
    "adaptive_clipping.largest": (NUMBER, "Largest clipping norm"),
    "adaptive_clipping.target_quantile": (NUMBER, "Share of units within the clipping norm"),
    "adaptive_clipping.rate": (NUMBER, "Rate of adaptive clipping"),
    "adaptive_clipping.count_noise": (NUMBER, "Noise on the count of units within"),
}
_VALUES = tuple(
    Entry(name, PUBLIC, rule, f"{what}: {_HOW}") for name, (rule, what) in _OF_VALUE.items()
)


def _below(prefix: str, *entries: Entry) -> tuple[Entry, ...]:
    return tuple(replace(entry, field=f"{prefix}.{entry.field}") for entry in entries)


_ENTRIES = (
    *_below(
        "RegisterRequest",
        Entry("protocol_version", PUBLIC, ROUND, "Constant of the software."),
        Entry(
            "software_version",
            PUBLIC,
            VERSION,
            "Constant of the software, without what a local build may add.",
        ),
        Entry("tasks.name", PUBLIC, TASK_NAME, "Name of the installed task, from its code."),
        Entry("tasks.digest", PUBLIC, DIGEST, "Names the installed task's code and encoder."),
    ),
    *_below("GetConfigRequest", _RUN),
    *_below("AcceptPlanRequest", _RUN, _PLAN),
    *_below("AcceptPlanRequest.effective.hyperparameters", *_VALUES),
    Entry(
        "AcceptPlanRequest.effective.insecure_deterministic",
        PUBLIC,
        FLAG,
        "Whether this gateway was started with seeded randomness.",
    ),
    *_below("AcceptPlanRequest.refusal", *_REFUSAL),
    Entry(
        "AcceptPlanRequest.signature",
        PUBLIC,
        Octets(160),
        "By this gateway's certificate, under the names of federation, gateway and run, the plan's "
        "digest and the values above. The key signs without chance, so that these alone decide its "
        "bytes: there is no room for anything else in them.",
    ),
    *_below(
        "WatchRequest",
        Entry("lease", OPERATIONAL, LEASE, "The orchestrator's own token, repeated."),
        Entry(
            "kept_runs",
            OPERATIONAL,
            NAME,
            "Names of the runs whose newest rounds are not published yet, from the ledger.",
        ),
    ),
    *_below(
        "FetchWeightsRequest",
        Entry("digest", OPERATIONAL, DIGEST, "Names weights, as the orchestrator announced them."),
        Entry("offset", OPERATIONAL, LENGTH, "Where a broken transfer goes on."),
    ),
    *_below("GetUploadRequest.key", *_KEY),
    *_below("GetUploadRequest", _BODY[0]),
    *_below("SubmitUpdateRequest.header.key", *_KEY),
    *_below(
        "SubmitUpdateRequest.header",
        _PLAN,
        Entry(
            "parent",
            OPERATIONAL,
            DIGEST,
            "Names the weights that the round began with, as the orchestrator announced them.",
        ),
    ),
    *_below("SubmitUpdateRequest.header.body", *_BODY),
    *_below("SubmitUpdateRequest.header.ledger_head", *_HEAD),
    *_below(
        "SubmitUpdateRequest.chunk",
        Entry("offset", OPERATIONAL, LENGTH, "Where the piece stands in the update."),
        Entry(
            "data",
            DP,
            Octets(CHUNK_BYTES),
            "A piece of the update: clipped, noised, and charged to the ledger before the first "
            "example was drawn; then rounded to the plan's wire format, which sees nothing else.",
        ),
    ),
    *_below("SubmitUpdateRequest.decline.key", *_KEY),
    *_below("SubmitUpdateRequest.decline.refusal", *_REFUSAL),
    *_below(
        "GetLedgerHeadRequest",
        Entry("insecure_deterministic", PUBLIC, FLAG, "Which of the two ledgers is asked for."),
    ),
    Entry(
        "EnrolRequest.secret",
        OPERATIONAL,
        Octets(SECRET_BYTES),
        "The secret of the token that an admin of the federation has made, repeated once.",
    ),
    *_below("EnrolRequest", _SIGNING_REQUEST),
    *_below("RenewRequest", _SIGNING_REQUEST),
    *_below(
        "GetCheckpointRequest",
        Entry(
            "after",
            OPERATIONAL,
            SEQUENCE,
            "Which record of the orchestrator's audit log was seen last: its own number, repeated.",
        ),
    ),
)

MANIFEST: Manifest = {entry.field: entry for entry in _ENTRIES}
BESIDE = (
    Aside(
        "certificate",
        PUBLIC,
        "It names the federation and the gateway, for the orchestrator only: TLS 1.3 encrypts it.",
    ),
    Aside(
        "headers",
        PUBLIC,
        "The call's name, the orchestrator's address as it was dialled, content type, compressions "
        "that are understood, and the call's time limit; the gateway adds no metadata of its own.",
    ),
    Aside(
        "user-agent",
        PUBLIC,
        "The version of gRPC and the kind of operating system.",
    ),
    Aside(
        "look-up of the address",
        PUBLIC,
        "Name servers, a proxy if one is set up, and the network learn which orchestrator is "
        "dialled.",
    ),
    Aside(
        "a call that is broken off",
        OPERATIONAL,
        "A code of HTTP/2; there is no text in it.",
    ),
    Aside(
        "presence",
        None,
        "That this gateway takes part, when it is connected, which rounds it answers.",
    ),
    Aside(
        "time",
        None,
        "How long training takes depends on the batches and the machine, and reading "
        "on the size of the data.",
    ),
    Aside(
        "sizes",
        None,
        "How many bytes go, and when. An update's length is fixed by the plan.",
    ),
    Aside(
        "the task",
        None,
        "A task is code that the site has installed, and what it might send on its "
        "own does not pass here.",
    ),
)
