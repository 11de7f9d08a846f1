"""What is said while something takes long."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from common import console


class Heard(io.StringIO):
    """Keeps what is written, and wakes whoever waits for a line of it."""

    def __init__(self) -> None:
        super().__init__()
        self.more = threading.Condition()

    def write(self, text: str) -> int:
        with self.more:
            written = super().write(text)
            self.more.notify_all()
        return written

    def heard(self, line: str) -> None:
        with self.more:
            assert self.more.wait_for(lambda: f"{line}\n" in self.getvalue(), timeout=10)


@pytest.fixture
def said(monkeypatch):
    """Standard error, as something that is no terminal."""
    out = Heard()
    monkeypatch.setattr(console, "ERRORS", Console(file=out, soft_wrap=True))
    return out


def test_what_is_done_soon_is_not_spoken_of(said):
    with console.working("adding"):
        pass
    assert said.getvalue() == ""


def test_what_takes_long_has_a_plain_line_and_later_others_with_the_time_left(said, monkeypatch):
    monkeypatch.setattr(console, "PATIENCE_S", 0.0)
    monkeypatch.setattr(console, "INTERVAL_S", 0.001)
    times = iter((100.0, 120.0))
    monkeypatch.setattr(console.SystemClock, "now", lambda _: next(times))
    with console.working("adding") as work:
        said.heard("adding …")
        work.reached(0, 10)
        said.heard("adding: 0 %")
        work.reached(5, 10)
        said.heard("adding: 50 %, about 20 seconds left")
    assert said.getvalue().startswith("adding …\nadding")


def test_what_prints_as_it_goes_is_not_spoken_of(said, monkeypatch):
    monkeypatch.setattr(console, "PATIENCE_S", 0.0)
    with console.working("adding", is_told=False) as work:
        work.reached(1, 2)
    assert said.getvalue() == ""


def test_time_left_follows_from_how_fast_it_went_since_it_was_first_seen():
    pace = console.Pace()
    assert pace.left(4, 10, 100.0) == ""
    assert pace.left(4, 10, 110.0) == ""
    assert pace.left(6, 10, 120.0) == "40 seconds"
    assert pace.left(10, 10, 160.0) == ""


def test_on_a_terminal_a_line_moves_and_is_gone_at_the_end(monkeypatch):
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=80)
    monkeypatch.setattr(console, "ERRORS", terminal)
    with console.working("adding") as work:
        work.reached(1, 4)
        work.reached(2, 4)
    assert "adding" in out.getvalue()
    assert "50 %" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")
