"""The runner of pages finds what is wrong with one, and leaves nothing running."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import running
from tests.docs.running import PageIsWrong, run_page

FENCE = "```"


def page(folder: Path, *parts: str) -> Path:
    """Write a page of blocks, each given as its language, a line end, and its text."""
    path = folder / "page.md"
    path.write_text("# A page\n\n" + "".join(f"{FENCE}{part}\n{FENCE}\n\n" for part in parts))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, beside the page."""
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_a_page_that_does_what_it_says_passes(tmp_path, folder):
    said = ('python title="a.py"\nprint(f"F1 {0.5:.3f}")', "sh\nA=a.py", "sh\npython $A")
    run_page(page(tmp_path, *said, "text\nF1 0.911"), folder)


def test_a_command_that_fails_is_named_with_its_line(tmp_path, folder):
    with pytest.raises(PageIsWrong, match=r"page\.md, line 5: the command failed:\n(.*\n)*.*nope"):
        run_page(page(tmp_path, "sh\ntrue\ncat nope\ntrue"), folder)


def test_a_command_that_fails_within_a_pipe_s_last_part_fails(tmp_path, folder):
    with pytest.raises(PageIsWrong, match="line 4: the command failed"):
        run_page(page(tmp_path, "sh\necho a | grep b"), folder)


@pytest.mark.parametrize("shown", ["F1 of 0.5", "second\nfirst", "first\nsecond\nthird"])
def test_what_is_not_printed_is_named(tmp_path, folder, shown):
    printed = "sh\necho first 1; echo first; echo second"
    with pytest.raises(PageIsWrong, match="not printed"):
        run_page(page(tmp_path, printed, f"text\n{shown}"), folder)


def test_a_page_that_does_not_end_is_stopped(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(running, "LIMIT_S", 0.5)
    with pytest.raises(PageIsWrong, match="did not end"):
        run_page(page(tmp_path, "sh\nsleep 60"), folder)


def test_what_a_page_left_running_is_ended(tmp_path, folder):
    run_page(page(tmp_path, "sh\nsleep 61.5 & echo $! > pid"), folder)
    stat = Path("/proc", (folder / "pid").read_text().strip(), "stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_definitions_are_put_in_place_of_a_file_s_own(tmp_path, folder):
    (folder / "a.py").write_text("A = 1\n\n\ndef f():\n    return A\n\n\nprint(f(), A)\n")
    new = 'python title="a.py, in place of A and f"\ndef f():\n    return 2 * A\n\n\nA = 4'
    run_page(page(tmp_path, new, "sh\npython a.py | grep '^8 4$'"), folder)


def test_a_definition_that_the_file_has_not_is_named(tmp_path, folder):
    (folder / "a.py").write_text("A = 1\n")
    with pytest.raises(PageIsWrong, match="in place of"):
        run_page(page(tmp_path, 'python title="a.py, in place of B"\nB = 4'), folder)
