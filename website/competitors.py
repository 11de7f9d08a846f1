"""Writes the side-by-side figures of `docs/explanation/comparison.md`, from what was recorded.

python -m website.competitors
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from benchmarks import records
from benchmarks.records import RESULTS
from benchmarks.registry import BENCHMARKS
from common.markdown import row, table
from website.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "explanation" / "comparison.md"
BEGIN, END = "<!-- from benchmarks/results -->", "<!-- to here -->"
NAMES = {"flower": "Flower", "nvflare": "NVFlare"}
DEFAULTS = {"flower": "no TLS, state in memory", "nvflare": "mTLS, as `nvflare poc` sets it up"}
_HEAD = ("system", "as", "MiB x gateways", "round, s", "server's peak, MiB")


def side_by_side(results: Path = RESULTS) -> str:
    """Return the table: the same rounds by each system, ours first."""
    others = _recorded("competitors", results)
    if not others:
        return "Nobody has recorded the others' rounds in this copy of the repository yet.\n"
    sizes = {(each["mib"], each["gateways"]) for each in others}
    ours = [
        line
        for line in _recorded("round", results)
        if (line["mib"], line["gateways"]) in sizes and not line["durable"]
    ]
    return table(_HEAD, [*map(_ours, ours), *map(_others, others)])


def with_figures(page: str, results: Path = RESULTS) -> str:
    """Return the page with the table in its place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{side_by_side(results)}\n{END}{after}"


def _recorded(name: str, results: Path) -> list[dict[str, Any]]:
    (benchmark,) = (each for each in BENCHMARKS if each.name == name)
    return records.read(benchmark, results)


def _ours(line: dict[str, Any]) -> str:
    how = "mTLS, state in memory" if line["tls"] else "no TLS, state in memory"
    return _row("Fedgate", how, line, line["orchestrator_peak_rss_mib"])


def _others(line: dict[str, Any]) -> str:
    name = f"{NAMES[line['system']]} {line['version']}"
    return _row(name, DEFAULTS[line["system"]], line, line["server_peak_rss_mib"])


def _row(name: str, how: str, line: dict[str, Any], peak: int) -> str:
    size = f"{line['mib']} x {line['gateways']}"
    return row(name, how, size, f"{line['round_median_s']:.2f}", f"{peak:,}")


def main() -> None:
    """Write the table into the page."""
    PAGE.write_text(with_figures(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
