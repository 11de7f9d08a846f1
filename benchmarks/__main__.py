"""Every benchmark, one after the other: `make bench`."""

from __future__ import annotations

from benchmarks import demo

demo.main(["letters", "bc5cdr"], None)
