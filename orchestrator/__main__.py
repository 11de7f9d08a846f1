"""`python -m orchestrator --config orchestrator.toml`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from common.config import load_settings
from common.errors import FederationError
from orchestrator.config import OrchestratorConfig
from orchestrator.server import serve


def main() -> int:
    """Serve; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("orchestrator.toml"))
    parser.add_argument("--standby", action="store_true")
    asked = parser.parse_args()
    try:
        config = load_settings(OrchestratorConfig, asked.config)
        asyncio.run(serve(config, standby=asked.standby))
    except FederationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
