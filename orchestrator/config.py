"""What an operator sets for the orchestrator: `orchestrator.toml`, see `common.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.config import Address, FileSettings
from common.http2 import Http2Settings
from common.logs import LogSettings
from common.tls import TlsFiles

GIB = 1 << 30
_LONGEST_SOCKET_PATH = 107  # bytes that Linux takes


class Limits(BaseModel):
    """How much may come in one body, and how much memory all runs together may need."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_update_bytes: Annotated[int, Field(gt=0)] = 4 * GIB
    max_weights_bytes: Annotated[int, Field(gt=0)] = 4 * GIB
    max_runs_mib: Annotated[int, Field(gt=0)] | None = None  # beyond it no run starts; None: any


class OrchestratorConfig(FileSettings):
    """Everything that an orchestrator is told."""

    federation: Annotated[str, Field(min_length=1, max_length=63)]  # as in the certificates
    state: Path = Path("state/orchestrator")  # everything that is kept
    shared: Path | None = None  # weights and signing key, where a standby has them too
    tls: TlsFiles
    address: Address = "127.0.0.1:8443"  # port 0: any free one
    database: str = ""  # an SQLAlchemy URL; empty: SQLite in the state folder
    health_socket: Path | None = None  # for exec probes; default: `<state>/health.sock`
    restart_grace_s: Annotated[float, Field(ge=0)] = 10.0  # least time for a round after a restart
    drain_s: Annotated[float, Field(ge=0)] = 5.0  # for calls under way at shutdown
    limits: Limits = Limits()
    http2: Http2Settings = Http2Settings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _socket_path_fits(self) -> Self:
        length = len(bytes(self.health_socket_path.absolute()))
        if length > _LONGEST_SOCKET_PATH:
            msg = (
                f"the path of health_socket has {length} bytes, a Unix socket's takes at most "
                f"{_LONGEST_SOCKET_PATH}: name a shorter one"
            )
            raise ValueError(msg)
        return self

    @property
    def health_socket_path(self) -> Path:
        """Where exec probes find the health service."""
        return self.health_socket or self.state / "health.sock"

    @property
    def address_file(self) -> Path:
        """Where the address that is served is written, while it is."""
        return self.state / "address"

    @property
    def database_url(self) -> str:
        """Where the journal is kept."""
        return self.database or f"sqlite:///{self.state / 'journal.db'}"
