"""Every benchmark, one after the other: `make bench`."""

from __future__ import annotations

from benchmarks import demo, fanout

demo.main(["letters", "bc5cdr"], None)
fanout.main()
