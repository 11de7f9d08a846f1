"""The real orchestrator: `python -m benchmarks.transport.orchestrator_process CONFIG [plain]`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.transport import plain
from common.config import load_settings
from orchestrator.config import OrchestratorConfig
from orchestrator.server import serve

if __name__ == "__main__":
    if "plain" in sys.argv[2:]:
        plain.serve_plainly()
    asyncio.run(serve(load_settings(OrchestratorConfig, Path(sys.argv[1]))))
