"""Every benchmark: what runs it, which fields name a configuration, which ones are compared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """One line of the registry; `benchmarks/results/NAME.jsonl` holds what was last recorded."""

    name: str
    commands: tuple[str, ...]  # modules with their arguments; each prints JSON lines
    of: tuple[str, ...]  # the fields that tell one configuration from another
    metrics: tuple[str, ...]  # ratios first: they hold on other machines too
    on_request: bool = False  # only where it is named: it takes an hour, or more than the lock


_ROUND = "benchmarks.round --with-floor"
_PRIVATE_STEP = "benchmarks.private_step --seconds 10"
_COMPETITORS = "benchmarks.competitors"

BENCHMARKS = (
    Benchmark(
        "round",
        (
            f"{_ROUND} --mib 1 --gateways 2 --rounds 30",
            f"{_ROUND} --mib 25 --gateways 8",
            f"{_ROUND} --mib 100 --gateways 8",
            f"{_ROUND} --mib 100 --gateways 8 --tls",
            f"{_ROUND} --mib 25 --gateways 8 --durable",
            f"{_ROUND} --mib 100 --gateways 8 --durable",
        ),
        of=("mib", "gateways", "tls", "durable"),
        metrics=(
            "ratio",
            "round_median_s",
            "orchestrator_cpu_s",
            "orchestrator_peak_rss_mib",
            "gateway_peak_rss_mib",
        ),
    ),
    Benchmark(
        "wire_formats",
        ("benchmarks.wire_formats --mib 256",),
        of=("format", "mib"),
        metrics=("encode_s_per_gib", "check_s_per_gib", "decode_s_per_gib", "bytes_per_value"),
    ),
    Benchmark(
        "private_step",
        (f"{_PRIVATE_STEP} --batch 64",),
        of=("model", "batch", "method"),
        metrics=("ratio_nonprivate", "ms_min", "peak_mib"),
    ),
    Benchmark(
        "noise",
        ("benchmarks.private_step --noise",),
        of=("method", "parameters"),
        metrics=("ns_per_parameter",),
    ),
    Benchmark(
        "demo",
        ("benchmarks.demo --corpus letters --corpus bc5cdr",),
        of=("corpus",),
        metrics=("f1", "seconds"),
    ),
    Benchmark(
        "fanout",
        ("benchmarks.fanout",),
        of=("gateways", "mib"),
        metrics=(
            "told_last_median_s",
            "round_median_s",
            "orchestrator_idle_cpu_percent",
            "orchestrator_peak_rss_mib",
        ),
    ),
    Benchmark(
        "siege",
        ("benchmarks.siege",),
        of=("half_open", "gateways", "mib"),
        metrics=(
            "round_median_s",
            "round_max_s",
            "orchestrator_peak_rss_mib",
            "orchestrator_grew_mib",
        ),
    ),
    Benchmark(
        "page",
        ("benchmarks.page",),
        of=("rounds", "gateways"),
        metrics=("work_median_ms", "work_p99_ms"),
        on_request=True,
    ),
    Benchmark(
        "wide_area",
        ("benchmarks.wide_area",),
        of=("link_mbit", "rtt_ms", "window_mib", "mib", "direction"),
        metrics=("filled",),
        on_request=True,
    ),
    Benchmark(
        "soak",
        ("benchmarks.soak --minutes 60",),
        of=("mib", "gateways", "minutes"),
        metrics=(
            "orchestrator_rss_mb_per_h",
            "gateway_rss_mb_per_h",
            "orchestrator_descriptors_per_h",
            "orchestrator_rss_mib",
            "gateway_rss_mib",
        ),
        on_request=True,
    ),
    Benchmark(
        "competitors",
        (
            f"{_COMPETITORS}.flower_round --mib 25 --gateways 8",
            f"{_COMPETITORS}.nvflare_round --mib 25 --gateways 8",
        ),
        of=("system", "mib", "gateways"),
        metrics=("round_median_s", "server_peak_rss_mib"),
        on_request=True,
    ),
)
