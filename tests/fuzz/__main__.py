"""Let atheris look for inputs that reach new code and break a rule: `make fuzz SECONDS=1800`.

    python -m tests.fuzz [--seconds 1800] [--jobs 1] [TARGET ...]

Each target has a process of its own and an equal share of the time. One JSON line for each: how
many inputs were tried, how much of the code they reached (as libFuzzer counts it), the memory. An
input that found something is kept in `corpus/`, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS, named

MOST_MIB = 1500  # torch is among what is loaded
LONGEST_INPUT = 1 << 14
HANGS_S = 30  # of the wall clock: the machine may be busy, processor time is what counts
_STATISTIC = re.compile(r"^stat::(\w+):\s+(\d+)", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+)")


def fuzz(target: Target, seconds: float) -> dict[str, Any]:
    """Fuzz a target in a process of its own; return what it comes to."""
    with TemporaryDirectory(prefix=f"fuzz-{target.name}-") as folder:
        seeds, artifacts = Path(folder) / "seeds", Path(folder) / "found"
        seeds.mkdir()
        artifacts.mkdir()
        for number, data in enumerate((*target.seeds, *target.found())):
            (seeds / str(number)).write_bytes(data)
        options = [
            f"-max_total_time={round(seconds)}",
            f"-artifact_prefix={artifacts}/",
            f"-timeout={HANGS_S}",
            f"-rss_limit_mb={MOST_MIB}",
            f"-max_len={LONGEST_INPUT}",
            "-print_final_stats=1",
        ]
        command = [sys.executable, "-m", "tests.fuzz.guided", target.name, *options, str(seeds)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        kept = [str(target.keep(path.read_bytes())) for path in sorted(artifacts.iterdir())]
    said = dict(_STATISTIC.findall(run.stderr))
    line = {
        "target": target.name,
        "executions": int(said.get("number_of_executed_units", 0)),
        "covered": max(map(int, _COVERED.findall(run.stderr)), default=0),
        "peak_rss_mib": int(said.get("peak_rss_mb", 0)),
        "found": kept,
    }
    if run.returncode:
        line["error"] = run.stderr[-2000:]
    print(json.dumps(line), flush=True)
    return line


def main() -> int:
    """Fuzz the targets that are named, or all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=1800.0, help="for all together")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("targets", nargs="*")
    asked = parser.parse_args()
    chosen = [named(name) for name in asked.targets] or list(TARGETS)
    share_s = max(1.0, asked.seconds * asked.jobs / len(chosen))
    with ThreadPoolExecutor(asked.jobs) as jobs:
        lines = list(jobs.map(lambda target: fuzz(target, share_s), chosen))
    total = {"executions": sum(line["executions"] for line in lines), "targets": len(lines)}
    failed = [line["target"] for line in lines if "error" in line]
    print(json.dumps({**total, "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
