"""How fast updates are written in each wire format and read again: one JSON line for each.

`python -m benchmarks.wire_formats --mib 256`; seconds are for one GiB of float32, the best of five.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from time import perf_counter  # noqa: TID251 - it measures

import numpy as np

from benchmarks.machine import described
from common.randomness import KEY_BYTES, RandomStream
from common.wire_formats import BLOCK, WireFormat, check_encoded, decode_block, encode

GIB = 1 << 30


def seconds(work: Callable[[], object], byte_length: int) -> float:
    """Return the least time of five that `work` takes, for one GiB."""
    times = []
    for _ in range(5):
        before = perf_counter()
        work()
        times.append(perf_counter() - before)
    return round(min(times) * GIB / byte_length, 4)


def measured(values: np.ndarray, wire_format: WireFormat) -> dict[str, object]:
    """Return what one format takes."""
    data, out = encode(values, wire_format, RandomStream(bytes(KEY_BYTES))), np.empty(BLOCK, "f4")

    def read() -> None:
        for start in range(0, values.size, BLOCK):
            part = out[: values.size - start]
            decode_block(data, wire_format, values.size, start, part)

    def write() -> None:
        encode(values, wire_format, RandomStream(bytes(KEY_BYTES)))

    return {
        "format": wire_format,
        "bytes_per_value": round(data.size / values.size, 4),
        "encode_s_per_gib": seconds(write, values.nbytes),
        "check_s_per_gib": seconds(
            lambda: check_encoded(data, wire_format, values.size), values.nbytes
        ),
        "decode_s_per_gib": seconds(read, values.nbytes),
    }


def main() -> None:
    """Print one line for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="of float32")
    mib = parser.parse_args().mib
    generator = np.random.default_rng(0)
    values = generator.normal(scale=1e-3, size=mib << 18).astype(np.float32)
    for wire_format in WireFormat:
        print(
            json.dumps(
                {
                    "benchmark": "wire_formats",
                    "mib": mib,
                    **measured(values, wire_format),
                    **described(),
                }
            )
        )


if __name__ == "__main__":
    main()
