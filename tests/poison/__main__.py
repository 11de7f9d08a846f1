"""`python -m tests.poison --cases 100000`: bad updates against a real orchestrator."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path

import structlog

from common.bad_updates import UpdateRefusalReason
from common.clock import SystemClock
from common.wire_formats import WireFormat
from tests.poison.rounds import poisoned


def main() -> int:
    """Return 0 if nothing has reached an average and every reason was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    quiet = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(wrapper_class=quiet)
    clock = SystemClock()
    began, founds = clock.now(), []
    with tempfile.TemporaryDirectory() as folder:
        for place, wire_format in enumerate(WireFormat):
            share = -(-options.cases // len(WireFormat))
            run = poisoned(Path(folder) / wire_format, wire_format, options.seed + place, share)
            founds.append(asyncio.run(run))
    reasons = sum((found.reasons for found in founds), Counter())
    line = {
        "cases": sum(found.cases for found in founds),
        "rounds": sum(found.rounds for found in founds),
        "escaped": sum(len(found.escaped) for found in founds),
        "wrong_means": sum(len(found.wrong_means) for found in founds),
        "reasons": dict(sorted(reasons.items())),
        "answers": dict(sum((found.errors for found in founds), Counter())),
        "seconds": round(clock.now() - began),
    }
    for found in founds:
        for escape in found.escaped[:5]:
            print(escape, file=sys.stderr)  # noqa: T201
    print(json.dumps(line))  # noqa: T201
    all_seen = set(map(str, UpdateRefusalReason)) == set(reasons)
    return 0 if all_seen and all(found.is_good for found in founds) else 1


if __name__ == "__main__":
    sys.exit(main())
