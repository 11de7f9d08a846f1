"""How the `fedgate` command reaches an orchestrator: `operator.toml`."""

from __future__ import annotations

import os
from pathlib import Path

from cli.sign_in import SignIn
from common.config import Addresses, FileSettings, load_settings
from common.http2 import Http2Settings

VARIABLE = "FEDGATE_OPERATOR_CONFIG"
DEFAULT = Path("operator.toml")


class OperatorConfig(FileSettings):
    """Where the orchestrator is, and who is asking."""

    address: Addresses  # of one, or of several of which one leads
    tls: SignIn
    signing_key: Path | None = None  # what `fedgate run start` signs plans with, PEM
    http2: Http2Settings = Http2Settings()

    @property
    def way(self) -> tuple[Addresses, SignIn, Http2Settings]:
        """What a client to this orchestrator is made of."""
        return self.address, self.tls, self.http2


def operator_config(path: Path | None) -> OperatorConfig:
    """Return the settings at `path`, else where FEDGATE_OPERATOR_CONFIG says, else here.

    Raises:
        SettingsInvalid: no file is there, or a field does not hold what it must.
    """
    return load_settings(OperatorConfig, path or Path(os.environ.get(VARIABLE, DEFAULT)))
