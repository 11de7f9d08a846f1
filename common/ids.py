"""Names of runs, gateways, weights and plans: distinct types over `str`."""

from __future__ import annotations

import re
from typing import NewType

GatewayId = NewType("GatewayId", str)  # as in the certificate: lower case, digits, "-" and "."
RunId = NewType("RunId", str)  # chosen by whoever starts the run, so that starting is repeatable
WeightsId = NewType("WeightsId", str)  # BLAKE3 of canonical safetensors bytes, 64 hex digits
PlanId = NewType("PlanId", str)  # BLAKE3 of a serialised plan, 64 hex digits

NO_RUN = RunId("")  # of news that concern no run

NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"


def is_name(text: str) -> bool:
    """Whether `text` can name a run or a gateway: it also becomes a file name and a URI part."""
    return re.fullmatch(NAME_PATTERN, text) is not None and ".." not in text


def is_digest(text: str) -> bool:
    """Whether `text` is 64 lower-case hexadecimal digits."""
    return re.fullmatch(DIGEST_PATTERN, text) is not None
