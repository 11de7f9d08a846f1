"""Every byte that a gateway sends in whole runs, read on the way: none of it quotes its data."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from common.errors import FederationError
from common.ids import RunId
from common.protocol import Decline, Refusal, RefusalReason, RunState, UpdateKey
from common.tls import Role
from gateway.client import GrpcClient
from gateway.egress import MANIFEST
from gateway.egress_rules import Text
from gateway.workshop import Workshop
from tasks.ner import NerTask
from tasks.task import DataConfig
from tests import tapping
from tests.at_work import SITE, at_work, is_settled, plan_for, settings
from tests.fakes import until
from tests.tapping import PREFACE, Tap, encodings, header_strings, hits, token_runs

LABEL = "Zebrafinkenleiden"
LABELS = ("Disease", "Drug", LABEL)
WORDS = ("Kanarienvogel", "Wellensittich", "Quetzalcoatlus")
CANARIES = {
    "word 1": WORDS[0],
    "word 2": WORDS[1],
    "word 3": WORDS[2],
    "label": LABEL,
    "document": "brief-nymphensittich-77",
    "person": "patientin-graupapagei-1953",
    "rows' site": "station-paradiesvogel",
    "file": "beobachtungen-kolibri",
    "folder": "ordner-rotkehlchen",
    "data set": "sammlung-zaunkoenig",
    "exception": "Saatkrähe unlesbar",
}
PATIENCE_S = 50.0
HEADER = re.compile(
    rb":authority|127\.0\.0\.1:\d+|:path|/federation\.v1\.(Gateway|Audit)Service/[A-Za-z]+"
    rb"|content-type|application/grpc|te|trailers|grpc-accept-encoding|identity, deflate, gzip"
    rb"|grpc-timeout|\d{1,8}[HMSmun]|user-agent"
    rb"|grpc-python-asyncio/[\d.]+ grpc-c/[\d.]+ \(\w+; chttp2\)"
)


class Ward(NerTask):
    """Named entities as shipped; on demand no batch can be read, and the error quotes the data."""

    failing = False

    def read(self, data, labels, cache):
        dataset = super().read(data, labels, cache)
        whole = dataset.batch

        def batch(rows):
            if self.failing:
                raise UnicodeDecodeError(
                    WORDS[0], WORDS[1].encode(), 0, 1, f"{CANARIES['exception']}: {WORDS[2]}"
                )
            return whole(rows)

        dataset.batch = batch
        return dataset


def rows() -> list[dict[str, str]]:
    """Twenty sentences; three words of each, its label, document, person and site are canaries."""
    where = {
        "site": CANARIES["rows' site"],
        "split": "train",
        "document": CANARIES["document"],
        "person": CANARIES["person"],
    }
    return [
        {"text": f"{WORDS[n % 3]} has {WORDS[(n + 1) % 3]}", "tags": f"B-Drug O B-{LABEL}", **where}
        for n in range(20)
    ]


@dataclass
class Site:
    """A gateway whose every byte passes through a tap."""

    federation: object
    folder: Path
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    registered: int = 0

    def prepare(self) -> None:
        self.tls = self.federation.authority.issue(Role.GATEWAY, SITE)
        self.tap = Tap(
            self.federation.address,
            self.federation.authority.issue(Role.ORCHESTRATOR, "orchestrator"),
            self.tls,
        )
        data = self.folder / CANARIES["folder"] / f"{CANARIES['file']}.jsonl"
        data.parent.mkdir()
        data.write_text("\n".join(map(json.dumps, rows())))
        self.task = Ward()
        self.config = settings(
            self.folder / CANARIES["folder"] / "state",
            self.tls,
            LABELS,
            data=DataConfig(path=data, site=CANARIES["rows' site"]),
            data_set=CANARIES["data set"],
        )

    @asynccontextmanager
    async def working(self):
        """Have the gateway's process work inside the block."""
        workshop = Workshop(SITE, self.config, self.task, None)
        async with (
            GrpcClient(self.tap.address, self.tls) as client,
            at_work(workshop, client, self._notes) as process,
        ):
            yield process

    def _notes(self, connected: bool) -> None:  # noqa: FBT001 - as the agent calls it
        self.registered += connected
        if connected:
            self.connected.set()

    async def start(self, run: str, labels=LABELS):
        rounds = {"count": 2, "maximum": 2}
        plan, initial = plan_for(
            self.task, labels, units=20, rounds=rounds, local_steps=2, name=run
        )
        operator = await self.federation.start(plan, run, initial)
        async with asyncio.timeout(PATIENCE_S):
            return await until(operator, is_settled, run)


@pytest.fixture
async def site(federation, tmp_path):
    async with federation.serving(), AsyncExitStack() as stack:
        made = Site(federation, tmp_path)
        made.prepare()
        await stack.enter_async_context(made.tap)
        yield made


def needles(task: NerTask) -> dict[str, bytes]:
    """Return every canary in every encoding, and the words as the encoder's tokens."""
    found = {
        f"{name}, {how}": needle
        for name, text in CANARIES.items()
        for how, needle in encodings(text).items()
    }
    for word in WORDS:
        ids = task.encoder._tokenizer.encode(word, add_special_tokens=False).ids
        found |= {f"{word}, {how}": needle for how, needle in token_runs(ids).items()}
    return found


@pytest.mark.timeout(120)
async def test_no_canary_leaves_through_runs_refusals_failures_and_a_broken_line(site):
    async with site.working() as process:
        first = await site.start("first")
        refused = await site.start("second", LABELS[:2])
        site.task.failing = True
        failed = await site.start("third")
        site.task.failing = False
        site.connected.clear()
        site.tap.cut()
        async with asyncio.timeout(PATIENCE_S):
            await site.connected.wait()
        fourth = await site.start("fourth")
        assert not process.done()
    sent = site.tap.connections()
    assert [first.state, failed.state, fourth.state] == [
        *(RunState.COMPLETED, RunState.FAILED, RunState.COMPLETED),
    ]
    assert refused.gateways[0].answer.reason is RefusalReason.TASK_MISMATCH
    assert (len(sent), site.registered) == (2, 2)
    assert sum(map(len, sent)) > 4 * first.bytes_received / 2  # four updates went through
    assert hits(sent, needles(site.task)) == set()
    assert [text for text in headers(sent) if not HEADER.fullmatch(text)] == []


def headers(sent) -> set[bytes]:
    found = [text for raw in sent for text in header_strings(raw)]
    assert not any(coded for coded, _ in found)  # in clear, so that the search reads them
    return {text for _, text in found}


async def test_an_error_that_is_let_into_a_field_is_found(site):
    """The same search, over a gateway whose manifest lets a sentence through."""
    path = "SubmitUpdateRequest.decline.refusal.field"
    broken = {**MANIFEST, path: replace(MANIFEST[path], rule=Text(".*", "anything"))}
    decline = Decline(
        UpdateKey(RunId("first"), 1),
        Refusal(RefusalReason.FAILED, f"cannot read {CANARIES['exception']}"),
    )
    async with GrpcClient(site.tap.address, site.tls) as sound:
        with pytest.raises(FederationError, match=r"decline\.refusal\.field must be one of"):
            await sound.decline(decline)
    assert hits(site.tap.connections(), encodings(CANARIES["exception"])) == set()
    async with GrpcClient(site.tap.address, site.tls, broken) as spilling:
        with pytest.raises(FederationError, match="there is no run"):
            await spilling.decline(decline)
    assert "utf-8" in hits(site.tap.connections(), encodings(CANARIES["exception"]))


def test_the_search_finds_every_needle_even_where_a_frame_ends_within_it():
    every = needles(Ward())
    for name, needle in every.items():
        half = len(needle) // 2
        body = b"\0" + (len(needle) + 4).to_bytes(4, "big") + b"ab" + needle + b"cd"
        cut = 7 + half
        raw = PREFACE + b"".join(
            len(part).to_bytes(3, "big") + bytes([tapping.DATA, 0]) + (1).to_bytes(4, "big") + part
            for part in (body[:cut], body[cut:])
        )
        assert name in hits([raw], every)
        assert hits([PREFACE], every) == set()


@pytest.mark.parametrize("before", ["", "x", "yz", "abc"])
def test_base64_is_found_wherever_it_begins(before):
    coded = base64.b64encode((before + CANARIES["label"] + "tail").encode())
    assert any(needle in coded for needle in encodings(CANARIES["label"]).values())
