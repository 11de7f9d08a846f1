"""What a process tells its own operator about itself, beside its log: settings, one table each.

Nothing of it goes to the other side of the federation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from common.config import Address
from common.errors import RequestError


class MetricsSettings(BaseModel):
    """Where a Prometheus of this site may read figures; whoever reaches the address reads them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Address = "127.0.0.1:9464"  # port 0: any free one


class TraceSettings(BaseModel):
    """Where spans go: a collector of one's own that speaks OTLP over gRPC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/?#\s@]+:\d{1,5}/?$")]  # with its port
    authority: Path | None = None  # of an https endpoint's certificate, PEM; None: the system's


class TracesNeedTheExtra(RequestError):
    """The settings name a collector, and the library that speaks to it is not installed."""

    field = "traces"

    def __init__(self) -> None:
        super().__init__(
            "[traces] names a collector, and OpenTelemetry is not installed here: "
            "pip install 'fedgate[otel]', or take [traces] out of the settings"
        )
