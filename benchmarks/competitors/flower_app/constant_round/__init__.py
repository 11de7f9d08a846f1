"""A Flower app that does the work of `benchmarks.round`."""
