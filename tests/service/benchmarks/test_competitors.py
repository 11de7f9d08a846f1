"""What the rounds of other systems share; the systems themselves are not installed here."""

from __future__ import annotations

import json
import socket
import sys

import psutil
import pytest

from benchmarks.competitors.others import MIB, Asked, Processes, awaited, listens, peak_mib, show

ASKED = Asked("flower", mib=1, gateways=3, rounds=2)
SLEEP = "import time; time.sleep(600)"
PARENT = """
import subprocess, sys, time
room = bytearray(64 << 20)
child = subprocess.Popen([sys.executable, "-c", "room = bytearray(64 << 20); " + sys.argv[2]])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.timeout(120)
def test_children_of_processes_count_and_end_with_them(tmp_path):
    said = tmp_path / "child"
    with Processes(tmp_path, {}) as processes:
        parent = processes.start("parent", sys.executable, "-c", PARENT, said, SLEEP)
        with peak_mib(parent.pid) as most:
            while most[0] < 128:
                assert parent.poll() is None
        pid = int(said.read_text())
        assert is_alive(pid)
    assert not is_alive(pid)
    assert parent.poll() is not None


def test_a_result_is_awaited_only_while_the_processes_live(tmp_path):
    with Processes(tmp_path, {}) as processes:
        failing = processes.start("failing", sys.executable, "-c", "raise SystemExit(3)")
        failing.wait()
        with pytest.raises(ChildProcessError, match="a process has failed"):
            awaited(tmp_path / "found.json", failing)
        (tmp_path / "found.json").write_text('{"seconds": [1.0]}')
        assert awaited(tmp_path / "found.json", failing) == {"seconds": [1.0]}


LISTEN = """
import socket, sys, time
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    time.sleep(600)
"""


def test_a_server_is_awaited_until_it_listens(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Processes(tmp_path, {}) as processes:
        server = processes.start("server", sys.executable, "-c", LISTEN, str(port))
        listens(f"127.0.0.1:{port}", server)
        with socket.create_connection(("127.0.0.1", port)):
            pass
    server.wait()


def test_a_server_that_ends_is_not_awaited(tmp_path):
    with Processes(tmp_path, {}) as processes:
        failing = processes.start("failing", sys.executable, "-c", "raise SystemExit(3)")
        failing.wait()
        with pytest.raises(ChildProcessError, match=r"nobody listens on 127\.0\.0\.1:1$"):
            listens("127.0.0.1:1", failing)


@pytest.mark.parametrize(("grown", "correct"), [(3 * 2 * 2.0**-12, True), (2.0**-12, False)])
def test_the_first_round_is_not_counted_and_the_average_is_checked(capsys, grown, correct):
    show(ASKED, "1.0", {"seconds": [9.0, 1.0, 3.0], "grown": [grown, grown]}, 100.0)
    line = json.loads(capsys.readouterr().out)
    assert (line["rounds"], line["round_median_s"], line["round_min_s"]) == (2, 2.0, 1.0)
    assert line["correct"] is correct
    assert line["server_peak_rss_mib"] == 100


def test_the_tensors_are_those_of_our_own_round():
    shapes = ASKED.shapes()
    assert sum(4 * _size(shape) for shape in shapes.values()) == MIB
    assert len(shapes) > 70


def _size(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 1 else shape[0] * shape[1]


def test_a_system_that_is_not_installed_says_how_to(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.competitors.others.ROOT", tmp_path)
    with pytest.raises(SystemExit, match="make bench-competitors"):
        _ = ASKED.programs
