"""Every measured figure of a page stands beside the command that makes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import pytest

from benchmarks import records
from benchmarks.registry import BENCHMARKS
from tests.docs.pages import ROOT, checked_pages, named
from website import competitors

FIGURE = re.compile(
    r"(?<![\w.-])\d[\d.,]*\s?(?:ms|MiB|GiB|MB|KB|% of a core|CPU seconds|processor seconds)\b"
    r"|\bF1\b[^|.]*\d\d\.\d|\|\s*\**\d\d\.\d\**\s*\||\btimes (?:faster|slower)\b",
    re.IGNORECASE,
)
COMMAND = re.compile(
    r"python -m [a-z]|\bmake [a-z-]+|fedgate[a-z-]* [a-z]|tests/[\w/.]+|`?test_\w+"
)
MEASURING = ("README.md", "docs/how-to/", "docs/explanation/")
RECKONED = {  # sections whose figures are settings, limits of the code, or follow from a formula
    ("docs/how-to/set-limits.md", "How much memory that comes to"),
    ("docs/how-to/wide-area-links.md", "Lines that lose packets"),
    ("docs/how-to/wide-area-links.md", "Narrow lines, deadlines"),
}


@dataclass(frozen=True)
class Section:
    """A heading of a page and what follows it, code blocks aside."""

    page: str
    heading: str
    text: str
    prose: str

    def __str__(self) -> str:
        return f"{self.page}: {self.heading}"


def sections(page: str, text: str) -> list[Section]:
    """Return the sections of a page in order; the first one is its beginning."""
    starts = [0, *(found.start() for found in re.finditer(r"^## ", text, re.MULTILINE)), len(text)]
    found = []
    for start, end in pairwise(starts):
        part = text[start:end]
        prose = re.sub(r"^ *```.*?^ *```", "", part, flags=re.MULTILINE | re.DOTALL)
        found.append(Section(page, part.partition("\n")[0].lstrip("# "), part, prose))
    return found


def without_a_command(page: str, text: str) -> list[str]:
    """Return the sections with a figure and no command, where the page's beginning has none."""
    first, *rest = sections(page, text)
    if COMMAND.search(first.text):
        return []
    return [
        section.heading
        for section in (first, *rest)
        if FIGURE.search(section.prose)
        and not COMMAND.search(section.text)
        and (page, section.heading) not in RECKONED
    ]


@pytest.mark.parametrize(
    "page", [page for page in checked_pages() if named(page).startswith(MEASURING)], ids=named
)
def test_a_section_with_a_figure_names_what_measures_it(page):
    assert without_a_command(named(page), page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("# Page\n\n## Speed\n\nIt takes 12 ms.\n", ["Speed"]),
        ("# Page\n\n## Quality\n\n| here | 77.5 |\n", ["Quality"]),
        ("# Page\n\n## Speed\n\nIt takes 12 ms (`python -m benchmarks.round`).\n", []),
        ("# Page\n\n## Speed\n\n```text\n12 ms\n```\n", []),
        ("# Page\n\n`make bench`\n\n## Speed\n\nIt takes 12 ms.\n", []),
    ],
)
def test_a_figure_without_a_command_is_noticed(text, missing):
    assert without_a_command("a page", text) == missing


def test_the_side_by_side_figures_are_those_that_were_recorded():
    page = competitors.PAGE.read_text(encoding="utf-8")
    assert competitors.with_figures(page) == page, "run python -m website.competitors"


def test_what_others_recorded_stands_beside_ours(tmp_path):
    line = {"mib": 25, "gateways": 8, "round_median_s": 1.5}
    theirs = {**line, "system": "flower", "version": "9.9", "server_peak_rss_mib": 1234}
    ours = {**line, "tls": True, "durable": False, "orchestrator_peak_rss_mib": 180}
    for name, recorded in (("competitors", theirs), ("round", ours)):
        (benchmark,) = (each for each in BENCHMARKS if each.name == name)
        records.write(benchmark, [recorded], tmp_path)
    first, _, *rows = competitors.side_by_side(tmp_path).splitlines()
    assert first.startswith("| system")
    assert rows == [
        "| Fedgate | mTLS, state in memory | 25 x 8 | 1.50 | 180 |",
        "| Flower 9.9 | no TLS, state in memory | 25 x 8 | 1.50 | 1,234 |",
    ]


def test_the_table_of_rounds_is_the_recorded_one():
    page = (ROOT / "docs" / "explanation" / "rounds.md").read_text(encoding="utf-8")
    (benchmark,) = (each for each in BENCHMARKS if each.name == "round")
    recorded = records.read(benchmark)
    assert recorded
    for line in recorded:
        options = [f"`--{name}`" for name in ("tls", "durable") if line[name]]
        label = ", ".join([f"{line['mib']} x {line['gateways']}", *options])
        (row,) = (each for each in page.splitlines() if each.startswith(f"| {label} |"))
        seconds, floor, ratio, peak = (cell.strip() for cell in row.split("|")[2:6])
        assert float(seconds) == pytest.approx(line["round_median_s"], abs=0.006)
        assert float(floor) == pytest.approx(line["floor_median_s"], abs=0.0006)
        assert not ratio or float(ratio) == pytest.approx(line["ratio"], abs=0.06)
        assert int(peak) == line["orchestrator_peak_rss_mib"]
