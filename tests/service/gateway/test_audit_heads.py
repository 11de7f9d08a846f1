"""What a gateway keeps of the orchestrator's audit log: it only grew, or here is the proof."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from common.audit import EMPTY, Action, Checkpoint, Entry, Head, Sealed, line_after, sign
from common.countersignature import countersign
from common.ids import GatewayId
from common.protocol import LedgerHead
from common.tls import Role
from gateway import audit_heads
from gateway.audit_commands import AnotherStory, StoryForged
from gateway.cli import app
from gateway.ledger import Ledger
from gateway.ledger_tables import AUDIT_HEADS
from gateway.record_watch import sealed_after
from tests.certificates import Authority
from tests.on_record import KEY, PUBLIC_KEY
from tests.signing import trust_file

ENTRY = Entry("someone", Action.START_RUN, {})
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))


def grown(count: int, story: str = "one", before: tuple = ()) -> tuple:
    """Return the lines of a log; each story has others."""
    lines = list(before)
    while len(lines) < count:
        head = lines[-1].head if lines else EMPTY
        lines.append(line_after(head, ENTRY, at=story, salt="0" * 32))
    return tuple(lines)


def sealed(lines: tuple, after: int = 0, key: Ed25519PrivateKey = KEY) -> Sealed:
    links = b"".join(line.link for line in lines[after:])
    return Sealed(sign(key, "acme", lines[-1].head, "today"), links)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield ledger
    ledger.close()


def see(ledger, told: Sealed) -> str:
    with ledger.transaction() as connection:
        return audit_heads.see(connection, told)


def heads(ledger) -> tuple[audit_heads.Seen, ...]:
    with ledger.transaction() as connection:
        return audit_heads.heads(connection)


def head(ledger) -> Head:
    with ledger.transaction() as connection:
        return audit_heads.head_of(connection)


LOG = grown(9)


@pytest.fixture
def seen(ledger):
    """The log has been seen up to record 5."""
    assert see(ledger, sealed(LOG[:5])) == ""
    return ledger


def test_a_log_that_only_grew_is_gone_on_from(seen):
    assert see(seen, sealed(LOG, after=5)) == ""
    assert head(seen) == LOG[-1].head
    assert see(seen, sealed(LOG, after=9)) == ""  # nothing new
    assert [each.problem for each in heads(seen)] == ["", ""]


def test_what_was_seen_outlives_the_process(seen, tmp_path):
    seen.close()
    again = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    assert head(again) == LOG[4].head
    again.close()


STORIES = {
    "cut": (sealed(LOG[:3]), "ends at record 3, and record 5 .*was cut, or rolled back"),
    "another record 5": (sealed(grown(5, "other")), "record 5 .*does not follow.*was forked"),
    "forked before": (sealed(grown(9, "other"), after=5), "record 9 .*does not follow"),
    "forked at once": (sealed(grown(9, "other", LOG[:4]), after=5), "record 9 .*does not follow"),
    "not shown": (replace(sealed(LOG, after=5), links=b""), "what leads to record 9 was not shown"),
    "another key": (sealed(LOG, after=5, key=OTHER_KEY), f"is known by {PUBLIC_KEY}"),
    "forged": (
        Sealed(Checkpoint(**{**vars(sealed(LOG).checkpoint), "at": "then"}), b""),
        "the signature under record 9 is not one",
    ),
}


@pytest.mark.parametrize(("told", "problem"), STORIES.values(), ids=STORIES.keys())
def test_another_story_is_refused_and_kept_as_its_own_proof(seen, told, problem):
    assert re.search(problem, see(seen, told))
    assert head(seen) == LOG[4].head
    assert heads(seen)[-1].checkpoint == told.checkpoint
    assert see(seen, sealed(LOG, after=5)) == ""  # the true one is still gone on from


def test_the_key_that_countersigns_the_ledger_is_the_logs_key_too(ledger):
    given = countersign(OTHER_KEY, "acme", GatewayId("north"), LedgerHead(0, "0" * 64))
    ledger.confirm(GatewayId("north"), given)
    assert "the orchestrator is known by" in see(ledger, sealed(LOG))


def test_only_the_last_checkpoints_are_kept_and_the_first_problems(ledger):
    lines = grown(2 * audit_heads.KEPT)
    for count in range(1, len(lines) + 1):
        assert see(ledger, sealed(lines[:count], after=count - 1)) == ""
    for number in range(2 * audit_heads.KEPT_PROBLEMS):
        assert see(ledger, sealed(grown(1, f"story {number}")))
    kept = heads(ledger)
    assert [each.problem == "" for each in kept] == [True] * 64 + [False] * 64
    assert kept[63].checkpoint.head == lines[-1].head


class Pages:
    """An orchestrator that shows few links at a time, of a log that grows meanwhile."""

    def __init__(self) -> None:
        self.lines = grown(10)
        self.asked: list[int] = []

    async def get_checkpoint(self, after: int) -> Sealed:
        self.asked.append(after)
        told = sealed(self.lines, after)
        self.lines = grown(len(self.lines) + 1, before=self.lines)
        return replace(told, links=told.links[: 4 * 32])


async def test_what_leads_to_a_checkpoint_comes_page_by_page(ledger):
    pages = Pages()
    told = await sealed_after(pages, 0)
    assert pages.asked == [0, 4, 8]
    assert told.checkpoint.sequence == 12
    assert see(ledger, told) == ""


@pytest.fixture
def place(tmp_path):
    """A gateway's settings, beside a ledger that the test writes to."""
    tls = Authority.make(tmp_path / "keys").issue(Role.GATEWAY, "north")
    settings = tmp_path / "gateway.toml"
    tables = {
        "address": "localhost:1",
        "state": str(tmp_path),
        "tls": {name: str(path) for name, path in tls},
        "task": {"reference": "unused", "labels": ["no", "yes"]},
        "data": {"corpus": "points", "site": "a"},
        "policy": {"epsilon_budget": 8.0},
    }
    tables["trust"] = {"plan_keys": str(trust_file(tmp_path))}
    settings.write_text(tomli_w.dumps(tables))
    return settings


def run(place, *command: str):
    return CliRunner().invoke(app, ["audit", *command, "--config", str(place)])


def test_the_commands_show_and_prove_a_log_that_only_grew(seen, place):
    see(seen, sealed(LOG, after=5))
    found = map(json.loads, run(place, "show", "--format", "json").output.splitlines())
    assert [each["checkpoint"]["sequence"] for each in found] == [5, 9]
    proven = run(place, "verify")
    assert proven.exit_code == 0
    assert f"it only grew: record 9, {LOG[-1].hash}" in proven.output
    lines = run(place, "export").output.splitlines()
    assert [Checkpoint.from_text(line.encode()).sequence for line in lines] == [5, 9]


def test_another_story_fails_the_proof_until_an_administrator_accepts_it(seen, place):
    see(seen, sealed(LOG[:3]))
    failed = run(place, "verify")
    assert isinstance(failed.exception, AnotherStory)
    assert "ANOTHER STORY" in run(place, "show").output
    seen.close()
    assert "accepted: the log goes on from record 3" in run(place, "accept").output
    assert run(place, "verify").exit_code == 0
    assert "there is nothing to accept" in run(place, "accept").output
    assert len(run(place, "show", "--format", "json").output.splitlines()) == 2


def test_after_an_accepted_story_the_log_goes_on_from_it(seen):
    put_back = grown(4, "after the restore", LOG[:3])
    assert "was cut" in see(seen, sealed(put_back))
    with seen.transaction() as connection:
        audit_heads.accept(connection)
    assert see(seen, sealed(grown(8, "after the restore", put_back), after=4)) == ""


def test_a_kept_checkpoint_that_was_changed_is_found(seen, place):
    with seen.transaction() as connection:
        connection.execute(AUDIT_HEADS.update().values(sequence=4))
    assert isinstance(run(place, "verify").exception, StoryForged)
