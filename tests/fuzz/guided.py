"""One target under atheris: `python -m tests.fuzz.guided TARGET [libFuzzer's options] [seeds]`."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from tests.fuzz.target import Target

OURS = ["common", "orchestrator", "gateway", "cli", "tasks"]


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz the target of that name; end the process."""
    atheris = _atheris()
    with atheris.instrument_imports(include=OURS):
        from tests.fuzz.targets import named  # noqa: PLC0415 - instrumented as it is imported

    target: Target = named(name)
    for seed in target.seeds:
        with suppress(Exception):
            target.run(seed)  # what is loaded at the first use takes no input's time
    atheris.Setup([sys.argv[0], *options], target.check)
    atheris.Fuzz()


def _atheris() -> Any:
    try:
        import atheris  # noqa: PLC0415 - not everywhere
    except ImportError:
        sys.exit("atheris is not installed: pip install 'fedgate[fuzz]'")
    return atheris


if __name__ == "__main__":
    fuzz(sys.argv[1], sys.argv[2:])
