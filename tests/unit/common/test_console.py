"""What is said while something takes long."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from common import console


@pytest.fixture
def said(monkeypatch):
    """Standard error, as something that is no terminal."""
    out = io.StringIO()
    monkeypatch.setattr(console, "ERRORS", Console(file=out, soft_wrap=True))
    return out


def test_what_is_done_soon_is_not_spoken_of(said):
    with console.working("adding"):
        pass
    assert said.getvalue() == ""


def test_what_takes_long_has_one_plain_line(said, monkeypatch):
    monkeypatch.setattr(console, "PATIENCE_S", 0.0)
    with console.working("adding"):
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join()
    assert said.getvalue() == "adding …\n"


def test_on_a_terminal_a_line_moves_and_is_gone_at_the_end(monkeypatch):
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=80)
    monkeypatch.setattr(console, "ERRORS", terminal)
    with console.working("adding"):
        pass
    assert "adding" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")
