"""What an operator sets for one gateway: `gateway.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from common.config import Address, Addresses, FileSettings, each_of, is_loopback
from common.http2 import Http2Settings
from common.hyperparameters import Overrides
from common.ids import NAME_PATTERN
from common.logs import LogSettings
from common.telemetry import MetricsSettings, TraceSettings
from common.tls import TlsFiles
from gateway.choices import Device, GradientsBy
from gateway.policy import Policy
from gateway.trust import TrustSettings
from tasks.task import DataConfig


class TaskChoice(BaseModel):
    """Which installed task this gateway trains: its own choice, never the orchestrator's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str = "tasks.ner:TASK"  # "module:attribute" or "file.py:attribute"
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    """All that the data may carry; a plan is compared with this public statement, never with rows,
    so that a refusal says nothing of them."""


def _needed(given: object) -> object:
    if given is None:
        msg = (
            "is missing, and without it no plan would be obeyed: let [trust] plan_keys name a file "
            "with the public keys of those who may order something here, one a line, as "
            "`fedgate plan keygen` writes them (docs/how-to/sign-plans.md)"
        )
        raise ValueError(msg)
    return given


Trust = Annotated[TrustSettings, BeforeValidator(_needed)]


class SiteMetrics(MetricsSettings):
    """The same for a gateway, beside an orchestrator's on one machine."""

    address: Address = "127.0.0.1:9465"


class SitePageSettings(BaseModel):
    """Where the site's own page is served: to this machine alone, for the site's people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Address = "127.0.0.1:8090"  # port 0: any free one
    session_hours: Annotated[float, Field(gt=0, le=24)] = 8.0  # then people sign in again

    @field_validator("address")
    @classmethod
    def _is_this_machine(cls, address: str) -> str:
        if not is_loopback(address.rpartition(":")[0].strip("[]")):
            msg = (
                "a gateway's page is for this machine alone: let it be 127.0.0.1 with a port, and "
                "come from elsewhere by `ssh -L` (docs/how-to/the-sites-own-page.md)"
            )
            raise ValueError(msg)
        return address


class GatewayConfig(FileSettings):
    """Everything one gateway needs to know."""

    address: Addresses  # of the orchestrator, or of several of which one leads
    state: Path = Path("state/gateway")  # ledger, kept updates, cached features
    data_set: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = "default"
    """What the ledger calls these data: all that was ever spent on them is counted under it."""
    tls: TlsFiles
    trust: Trust = Field(default=None, validate_default=True)  # whose plans are obeyed
    task: TaskChoice
    data: DataConfig
    policy: Policy
    hyperparameters: Overrides = Overrides()  # this gateway's own, over what the plan gives it
    gradients: GradientsBy = GradientsBy.ONE_BACKWARD  # how each one's is clipped
    device: Device = Device.AUTO  # where it trains: a GPU where torch finds one, else the processor
    micro_batch: Annotated[int, Field(gt=0)] = 64  # records that are worked on at once
    threads: Annotated[int, Field(gt=0)] = 1  # of the processor, for training
    http2: Http2Settings = Http2Settings()
    log: LogSettings = LogSettings()
    metrics: SiteMetrics | None = None  # None: no figures are served
    traces: TraceSettings | None = None  # None: nothing is traced
    web: SitePageSettings | None = None  # None: there is no page

    @model_validator(mode="after")
    def _traces_stay_here(self) -> Self:
        dialled = {each.casefold() for each in each_of(self.address)}
        if self.traces and urlsplit(self.traces.endpoint).netloc.casefold() in dialled:
            msg = (
                f"traces.endpoint is {self.traces.endpoint}, the orchestrator: a gateway's spans "
                "go to a collector of its own site, or nowhere"
            )
            raise ValueError(msg)
        return self
