"""Rounds over bad networks: each process on a host of its own, real sockets, mTLS."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest

from common.transfer import CHUNK_BYTES
from tests.hosts.federation import ELSEWHERE, NAME, ORCHESTRATOR, PORT, Federation
from tests.hosts.lab import Lab, address, why_not
from tests.hosts.wide_task import BYTES

WHY_NOT = why_not()

pytestmark = [
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
    pytest.mark.timeout(500),
]
TINY, WIDE = "tiny_task.py", "hosts/wide_task.py"
QUICK = {"keepalive_s": 2.0, "ping_timeout_s": 2.0}  # so that a silent cut is noticed soon
AWAY = address(102)  # where a gateway may move


def test_rounds_close_where_frames_are_lost_and_the_way_is_long(tmp_path):
    sites = ("alder", "birch")
    with Lab(3, congestion="reno") as lab:
        federation = Federation(lab, tmp_path, TINY, sites)
        for site in sites:
            lab.cable(federation.host(site), delay_ms=100, loss=0.05)
        federation.start_orchestrator()
        federation.start_gateways()
        federation.start_run(count=3)
        assert federation.counted() == {"alder": 3, "birch": 3}


DOOR = (
    "import signal, socket, sys\n"
    "door = socket.create_server(('', int(sys.argv[1])))\n"
    "signal.pause()"
)


def can_dial(lab: Lab, number: int, to: int, port: int) -> bool:
    """Whether a connection from one host to another's port is accepted."""
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    command = [sys.executable, "-c", code, address(to), str(port)]
    try:
        lab.run(number, command)
    except subprocess.CalledProcessError:
        return False
    return True


def test_gateways_that_enrol_by_token_and_that_nobody_can_dial_complete_a_run(tmp_path):
    sites, listening = ("alder", "birch", "cedar"), 9000
    with Lab(4) as lab:
        federation = Federation(lab, tmp_path, TINY, sites)
        hosts = [federation.host(site) for site in sites]
        for host in hosts:  # a door for the firewall to shut: gateways have none
            lab.start(host, [sys.executable, "-c", DOOR, str(listening)])
            federation.until(partial(can_dial, lab, ORCHESTRATOR, host, listening), "it is open")
            lab.close(host)
            assert not can_dial(lab, ORCHESTRATOR, host, listening)
        federation.open_enrolment()
        federation.start_orchestrator()
        federation.enrol_gateways()
        federation.start_gateways()
        federation.start_run(count=3)
        assert federation.counted() == {"alder": 3, "birch": 3, "cedar": 3}
        for host in hosts:
            assert can_dial(lab, host, ORCHESTRATOR, PORT)
            assert not can_dial(lab, ORCHESTRATOR, host, listening)
            assert ports_open(lab, host) == {listening}


def ports_open(lab: Lab, number: int) -> set[int]:
    """Return the TCP ports on which any process of a host listens."""
    rows = lab.run(number, ["cat", "/proc/net/tcp"]).splitlines()[1:]
    fields = [row.split() for row in rows]
    return {int(each[1].partition(":")[2], 16) for each in fields if each[3] == "0A"}


def heal(federation: Federation) -> None:
    """Cut the gateway off without a word, until it has noticed."""
    host = federation.host("alder")
    federation.lab.cut(host)
    federation.until(lambda: "will_try_again" in federation.log("alder"), "it notices")
    federation.lab.cut(host, cut=False)


def move_gateway(federation: Federation) -> None:
    host = federation.host("alder")
    federation.lab.move(host, address(host), AWAY)


def move_orchestrator(federation: Federation) -> None:
    federation.lab.move(ORCHESTRATOR, address(ORCHESTRATOR), ELSEWHERE)
    federation.lab.name(**{NAME: ELSEWHERE})


BY_NAME, BY_LIST = (NAME,), (address(ORCHESTRATOR), ELSEWHERE)


@pytest.mark.parametrize(
    ("event", "addresses"),
    [
        pytest.param(heal, BY_NAME, id="cut"),
        pytest.param(move_gateway, BY_NAME, id="gateway-moves", marks=pytest.mark.slow),
        pytest.param(move_orchestrator, BY_NAME, id="name-moves", marks=pytest.mark.slow),
        pytest.param(move_orchestrator, BY_LIST, id="other-address", marks=pytest.mark.slow),
    ],
)
def test_an_upload_goes_on_where_it_was_after(tmp_path, event, addresses):
    with Lab(2) as lab:
        federation = Federation(lab, tmp_path, WIDE, ("alder",), **QUICK)
        host = federation.host("alder")
        federation.start_orchestrator()
        federation.start_gateways([f"{each}:{PORT}" for each in addresses])
        lab.cable(host, mbit=20)
        federation.start_run()
        before, _ = lab.carried(host)
        federation.until(lambda: lab.carried(host)[0] - before > BYTES / 2, "half is sent")
        event(federation)
        assert federation.counted() == {"alder": 1}
        sent = lab.carried(host)[0] - before
    assert BYTES < sent < 1.1 * (BYTES + CHUNK_BYTES)  # a chunk that was under way comes again


@pytest.mark.slow
def test_a_round_closes_at_its_deadline_without_the_site_on_a_narrow_link(tmp_path):
    sites = ("alder", "birch", "cedar")
    with Lab(4) as lab:
        federation = Federation(lab, tmp_path, WIDE, sites)
        federation.start_orchestrator()
        federation.start_gateways()
        lab.cable(federation.host("cedar"), mbit=1)  # a minute for the model
        federation.start_run(quorum=2, deadline_s=30.0)
        assert federation.counted() == {"alder": 1, "birch": 1, "cedar": 0}
