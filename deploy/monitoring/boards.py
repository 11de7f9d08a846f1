"""The Grafana boards, as code: `python deploy/monitoring/boards.py` writes each as JSON beside it.

One is for whoever runs the orchestrator, the other for a site that runs a gateway: each reads a
Prometheus of its own, and neither sees what the other has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import Dashboard, DashboardCursorSync, DataSourceRef

HERE = Path(__file__).parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
COLUMNS = 24  # of a board
NUMBER_HEIGHT, LINES_HEIGHT = 4, 8
DAY_S = 86400


@dataclass(frozen=True)
class Panel:
    """What is asked, and how the answer is shown: as one number each, or as lines."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]  # expression, legend
    is_number: bool = False
    text: str = ""


@dataclass(frozen=True)
class Row:
    """Panels side by side."""

    title: str
    panels: Sequence[Panel]


def _increase(counter: str, by: str) -> str:
    return f"sum by ({by}) (increase({counter}[$__rate_interval]))"


def _rate(counter: str) -> str:
    return f"sum(rate({counter}[$__rate_interval]))"


def _quantile(share: float, histogram: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    rates = f"sum by ({labels}) (rate({histogram}_bucket[$__rate_interval]))"
    return f"histogram_quantile({share}, {rates})"


def _process(job: str) -> Row:
    selector = f'{{job="{job}"}}'
    ends = f"fedgate_certificate_not_after_timestamp_seconds{selector}"
    cpu = f"rate(process_cpu_seconds_total{selector}[$__rate_interval])"
    return Row(
        "Process",
        (
            Panel("Processor", "none", ((cpu, "cores"),)),
            Panel("Memory", "bytes", ((f"process_resident_memory_bytes{selector}", "resident"),)),
            Panel("Open files", "none", ((f"process_open_fds{selector}", "files"),)),
            Panel(
                "Certificate, days left",
                "none",
                ((f"(min({ends}) - time()) / {DAY_S}", "days"),),
                is_number=True,
            ),
        ),
    )


_ROUND, _GATEWAY = "fedgate_round_phase_seconds", "fedgate_gateway_phase_seconds"
_COMMIT = "fedgate_journal_commit_seconds"
_SHARE = "fedgate_memory_budget_taken_bytes / fedgate_memory_budget_bytes"

FEDERATION = (
    Row(
        "Now",
        (
            Panel("Leads", "none", (("max(fedgate_leader)", "leader"),), is_number=True),
            Panel(
                "Runs", "none", (("sum by (state) (fedgate_runs)", "{{state}}"),), is_number=True
            ),
            Panel(
                "Open rounds",
                "none",
                (("sum by (phase) (fedgate_rounds_open)", "{{phase}}"),),
                is_number=True,
            ),
            Panel(
                "Gateways",
                "none",
                (
                    ("sum(fedgate_gateways_connected)", "connected"),
                    ("sum(fedgate_gateways_away)", "away"),
                ),
                is_number=True,
                text="Away: a run needs them, and they are not connected.",
            ),
            Panel(
                "Overdue", "s", (("max(fedgate_deadline_overdue_seconds)", "s"),), is_number=True
            ),
            Panel(
                "Alerts firing",
                "none",
                (('sum(ALERTS{alertstate="firing"}) or vector(0)', "alerts"),),
                is_number=True,
            ),
        ),
    ),
    Row(
        "Rounds",
        (
            Panel(
                "Rounds ended",
                "none",
                ((_increase("fedgate_rounds_ended_total", "outcome"), "{{outcome}}"),),
            ),
            Panel(
                "Seconds per phase",
                "s",
                (
                    (_quantile(0.5, _ROUND, "phase"), "{{phase}}, median"),
                    (_quantile(0.95, _ROUND, "phase"), "{{phase}}, 95 %"),
                ),
                text="Collecting: until the updates were there. Aggregating: until weights were.",
            ),
            Panel(
                "Gateways",
                "none",
                (
                    ("sum(fedgate_gateways_connected)", "connected"),
                    ("sum(fedgate_gateways_away)", "away"),
                ),
            ),
        ),
    ),
    Row(
        "Updates",
        (
            Panel(
                "Updates",
                "none",
                tuple(
                    (f"sum(increase(fedgate_updates_{name}_total[$__rate_interval]))", legend)
                    for name, legend in (
                        ("counted", "counted"),
                        ("clipped", "of these scaled down"),
                        ("set_aside", "set aside"),
                        ("lost", "lost"),
                    )
                ),
            ),
            Panel(
                "Refused, by reason",
                "none",
                ((_increase("fedgate_updates_refused_total", "reason"), "{{reason}}"),),
            ),
            Panel(
                "Rounds declined, by reason",
                "none",
                ((_increase("fedgate_updates_declined_total", "reason"), "{{reason}}"),),
            ),
        ),
    ),
    Row(
        "Traffic",
        (
            Panel(
                "Bytes",
                "Bps",
                (
                    (_rate("fedgate_updates_received_bytes_total"), "updates in"),
                    (_rate("fedgate_weights_sent_bytes_total"), "weights out"),
                ),
            ),
            Panel("Calls under way", "none", (("sum(fedgate_calls_open)", "calls"),)),
            Panel(
                "Calls refused, by reason",
                "none",
                ((_increase("fedgate_calls_refused_total", "reason"), "{{reason}}"),),
            ),
            Panel("Memory for bodies, share taken", "percentunit", ((_SHARE, "taken"),)),
        ),
    ),
    Row(
        "Stores",
        (
            Panel(
                "Journal, seconds per write",
                "s",
                ((_quantile(0.5, _COMMIT), "median"), (_quantile(0.99, _COMMIT), "99 %")),
            ),
            Panel("Journal, writes", "wps", ((_rate(f"{_COMMIT}_count"), "writes"),)),
            Panel("Runs in doubt", "none", (("sum(fedgate_runs_in_doubt)", "runs"),)),
            Panel(
                "Room on the disks",
                "bytes",
                (
                    ("min by (folder) (fedgate_disk_free_bytes)", "{{folder}}"),
                    ("max(fedgate_disk_reserve_bytes)", "reserve"),
                ),
            ),
        ),
    ),
    _process("fedgate-orchestrator"),
)
SITE = (
    Row(
        "Now",
        (
            Panel("Connected", "none", (("min(fedgate_gateway_connected)", ""),), is_number=True),
            Panel(
                "Rounds",
                "none",
                (("sum by (outcome) (fedgate_gateway_rounds_total)", "{{outcome}}"),),
                is_number=True,
            ),
        ),
    ),
    Row(
        "Rounds",
        (
            Panel(
                "Rounds, by what became of them",
                "none",
                ((_increase("fedgate_gateway_rounds_total", "outcome"), "{{outcome}}"),),
            ),
            Panel(
                "Seconds per phase",
                "s",
                (
                    (_quantile(0.5, _GATEWAY, "phase"), "{{phase}}, median"),
                    (_quantile(0.95, _GATEWAY, "phase"), "{{phase}}, 95 %"),
                ),
            ),
            Panel(
                "Bytes",
                "Bps",
                (
                    (_rate("fedgate_gateway_weights_fetched_bytes_total"), "weights in"),
                    (_rate("fedgate_gateway_updates_sent_bytes_total"), "updates out"),
                ),
            ),
        ),
    ),
    _process("fedgate-gateway"),
)
BOARDS = {
    "federation-board.json": ("Fedgate: a federation", "fedgate-federation", FEDERATION),
    "site-board.json": ("Fedgate: a site", "fedgate-site", SITE),
}


def queries(rows: Sequence[Row]) -> list[str]:
    """Return every expression of a board."""
    return [expression for row in rows for panel in row.panels for expression, _ in panel.queries]


def as_json(title: str, uid: str, rows: Sequence[Row]) -> str:
    """Return a board as Grafana reads it."""
    return JSONEncoder(sort_keys=True, indent=2).encode(_board(title, uid, rows)) + "\n"


def _board(title: str, uid: str, rows: Sequence[Row]) -> Dashboard:
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .tags(["fedgate"])
        .time("now-1h", "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(
            dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus")
        )
    )
    for row in rows:
        board.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            board.with_panel(_shown(panel, COLUMNS // len(row.panels)))
    return board.build()


def _shown(panel: Panel, width: int) -> stat.Panel | timeseries.Panel:
    shown = _numbers() if panel.is_number else _lines()
    shown.title(panel.title).unit(panel.unit).description(panel.text).datasource(SOURCE)
    shown.height(NUMBER_HEIGHT if panel.is_number else LINES_HEIGHT).span(width)
    for name, (expression, legend) in zip("ABCDEF", panel.queries, strict=False):
        query = prometheus.Dataquery().ref_id(name).expr(expression).legend_format(legend)
        shown.with_target(query.datasource(SOURCE))
    return shown


def _numbers() -> stat.Panel:
    newest = common.ReduceDataOptions().values(False).calcs(["lastNotNull"])
    return (
        stat.Panel()
        .reduce_options(newest)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.NONE)
        .text_mode(BigValueTextMode.AUTO)
    )


def _lines() -> timeseries.Panel:
    below = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST)
    return (
        timeseries.Panel()
        .fill_opacity(8)
        .min(0)
        .legend(below.placement(LegendPlacement.BOTTOM).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )


if __name__ == "__main__":
    for file, board in BOARDS.items():
        (HERE / file).write_text(as_json(*board), encoding="utf-8")
