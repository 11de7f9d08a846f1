"""Settings for every test."""

from __future__ import annotations

import gc
import os

from hypothesis import Phase, settings

# no deadline: the machines are noisy; in CI the same examples each time
settings.register_profile("fedgate", max_examples=50, deadline=None, derandomize="CI" in os.environ)
# for code that is wrong on purpose: one failure is enough, however large its example
settings.register_profile(
    "planted",
    settings.get_profile("fedgate"),
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
)
settings.load_profile("fedgate")


def pytest_collection_finish() -> None:
    """Spare the garbage collector what is imported by now: torch's and scipy's objects stay."""
    gc.freeze()
