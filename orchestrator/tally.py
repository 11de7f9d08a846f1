"""What has happened since this process began, in plain numbers: an addition each, on the loop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counted whether or not anybody reads it."""

    update_bytes: int = 0  # of updates that came, repeats counted
    weight_bytes: int = 0  # of weights that went to gateways
    open_calls: int = 0  # Watch streams among them
    refused_calls: Counter[str] = field(default_factory=Counter)  # by the class of the error
