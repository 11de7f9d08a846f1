"""The pages of what a user's Python imports, from its docstrings by mkdocstrings."""

from __future__ import annotations

_PRIVATE_STEP = """# `private_step`

[How to use it](../how-to/train-a-torch-model-privately.md), without a federation.

::: private_step
"""
_TASK = """# The Task protocol

What one file of Python has to offer, so that gateways train a model of your own with it;
`fedgate-gateway check` says what is missing.

::: tasks.task
"""


def pages() -> dict[str, tuple[str, str]]:
    """Return the pages: title and text by file name."""
    return {
        "private-step.md": ("private_step", _PRIVATE_STEP),
        "task.md": ("The Task protocol", _TASK),
    }
