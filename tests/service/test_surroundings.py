"""What a check warns of in a machine and on the way, where nothing is broken yet."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from common.errors import RequestError
from common.findings import Findings, Level
from common.surroundings import (
    look_at_certificate,
    look_at_clock,
    look_at_memory,
    look_at_proxy,
    look_at_space,
    look_at_state,
    look_at_way,
)
from common.tls import CertificateOutOfDate
from tests.members import Clinic


@pytest.fixture
def findings():
    return Findings()


def only(findings: Findings) -> tuple[Level, str]:
    (found,) = findings.all
    return found.level, found.message


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - of certificates that are made now


def test_a_certificate_that_should_have_been_renewed_is_a_warning(findings, tmp_path):
    files = Clinic(tmp_path).forged(days=(-10.0, 1.0))
    assert look_at_certificate(findings, files, now()) is not None
    level, said = only(findings)
    assert level is Level.WARNING
    assert "should have been renewed" in said


def test_a_certificate_that_has_not_begun_is_told_from_one_that_is_over(findings, tmp_path):
    files = Clinic(tmp_path).forged(days=(1.0, 2.0))
    with pytest.raises(CertificateOutOfDate, match="is good from"):
        files.check_in_force(now())
    assert look_at_certificate(findings, files, now()) is None
    assert only(findings)[0] is Level.PROBLEM


def test_an_orchestrator_that_does_not_say_its_time_is_no_problem(findings):
    look_at_clock(findings, now(), None)
    level, said = only(findings)
    assert level is Level.OK
    assert "does not say its own" in said


def test_less_memory_than_training_takes_is_a_warning(findings):
    look_at_memory(findings, 1 << 60)
    assert only(findings)[0] is Level.WARNING


def test_a_proxy_that_lets_calls_through_is_a_warning(findings, monkeypatch):
    monkeypatch.setenv("grpc_proxy", "http://user:secret@p:1")
    look_at_way(findings, ["nowhere.invalid:1"])  # the proxy's to find
    look_at_proxy(findings, ["nowhere.invalid:1"])
    level, said = only(findings)
    assert level is Level.WARNING
    assert "no_proxy=nowhere.invalid" in said
    assert "secret" not in said


def test_a_folder_that_cannot_be_made_is_a_problem_and_room_is_measured_above_it(
    findings, tmp_path
):
    (tmp_path / "file").touch()
    look_at_state(findings, tmp_path / "file" / "state")
    look_at_space(findings, tmp_path / "not" / "there", 1)
    assert [each.level for each in findings.all] == [Level.PROBLEM, Level.OK]
    assert not (tmp_path / "not").exists()


def test_the_same_sentence_is_noted_once(findings):
    for about in ("host name", "orchestrator"):
        with findings.looking_at(about):
            raise RequestError("the same")
    assert only(findings) == (Level.PROBLEM, "the same")
