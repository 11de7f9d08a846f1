"""What a process tells its own operator about itself, beside its log: settings, one table each.

Nothing of it goes to the other side of the federation.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from common.config import Address
from common.errors import UnavailableError


class MetricsSettings(BaseModel):
    """Where a Prometheus of this site may read figures; whoever reaches the address reads them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Address = "127.0.0.1:9464"  # port 0: any free one


class MetricsAddressTaken(UnavailableError):
    """Figures cannot be served where they should be."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            f"cannot serve metrics on {address} ({why}): does another process listen there? "
            "Set `address` of [metrics]"
        )
