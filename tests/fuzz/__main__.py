"""Let atheris look for inputs that reach new code and break a rule: `make fuzz SECONDS=1800`.

    python -m tests.fuzz [--seconds 1800] [TARGET ...]

Our code is loaded once, with atheris' counters in it; each target is then a child process with an
equal share of the time. One JSON line for each: how many inputs were tried, how much of our code
they reached (as libFuzzer counts it), the memory. An input that found something is kept in
`corpus/`, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.fuzz.target import Target

OURS = ["common", "orchestrator", "gateway", "cli", "tasks"]
MOST_MIB = 1500  # torch is among what is loaded
LONGEST_INPUT = 1 << 14
HANGS_S = 30  # of the wall clock: the machine may be busy, processor time is what counts
_STATISTIC = re.compile(r"^stat::(\w+):\s+(\d+)", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+)")


def fuzz(atheris: Any, target: Target, seconds: float) -> dict[str, Any]:
    """Fuzz a target in a child process; return what it comes to."""
    folder = Path(mkdtemp(prefix=f"fuzz-{target.name}-"))
    for part in ("seeds", "found"):
        (folder / part).mkdir()
    for number, data in enumerate((*target.seeds, *target.found())):
        (folder / "seeds" / str(number)).write_bytes(data)
    child = os.fork()
    if not child:
        _in_child(atheris, target, seconds, folder)
    _, status = os.waitpid(child, 0)
    said = (folder / "log").read_text(errors="replace")
    kept = [str(target.keep(path.read_bytes())) for path in sorted((folder / "found").iterdir())]
    shutil.rmtree(folder)
    counted = dict(_STATISTIC.findall(said))
    line = {
        "target": target.name,
        "executions": int(counted.get("number_of_executed_units", 0)),
        "covered": max(map(int, _COVERED.findall(said)), default=0),
        "peak_rss_mib": int(counted.get("peak_rss_mb", 0)),
        "found": kept,
    }
    if os.waitstatus_to_exitcode(status):
        line["error"] = said[-2000:]
    print(json.dumps(line), flush=True)
    return line


def _in_child(atheris: Any, target: Target, seconds: float, folder: Path) -> None:
    """Fuzz, and never return: libFuzzer ends the process.

    An error leaves as SystemExit, and libFuzzer keeps its input while the interpreter ends.
    """
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    for seed in target.seeds:
        with suppress(Exception):
            target.run(seed)  # what is loaded at the first use takes no input's time
    options = [
        f"-max_total_time={round(seconds)}",
        f"-artifact_prefix={folder / 'found'}/",
        f"-timeout={HANGS_S}",
        f"-rss_limit_mb={MOST_MIB}",
        f"-max_len={LONGEST_INPUT}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder / "seeds")], target.check)
    atheris.Fuzz()
    os._exit(0)


def main() -> int:
    """Fuzz the targets that are named, or all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=1800.0, help="for all together")
    parser.add_argument("targets", nargs="*")
    asked = parser.parse_args()
    try:
        import atheris  # noqa: PLC0415 - not everywhere
    except ImportError:
        parser.exit(2, "atheris is not installed: pip install 'fedgate[fuzz]'\n")
    with atheris.instrument_imports(include=OURS):
        from tests.fuzz.targets import TARGETS, named  # noqa: PLC0415 - counted from here on
    chosen = [named(name) for name in asked.targets] or list(TARGETS)
    lines = [fuzz(atheris, target, max(1.0, asked.seconds / len(chosen))) for target in chosen]
    total = {"executions": sum(line["executions"] for line in lines), "targets": len(lines)}
    failed = [line["target"] for line in lines if "error" in line]
    print(json.dumps({**total, "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
