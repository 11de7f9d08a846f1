"""The real orchestrator: `python -m benchmarks.transport.orchestrator_process CONFIG [plain]`.

Beside its log it prints when it opens each round: before the journal has it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.transport import plain
from benchmarks.transport.moments import note_openings
from common.config import load_settings
from orchestrator.config import OrchestratorConfig
from orchestrator.server import serve

if __name__ == "__main__":
    if "plain" in sys.argv[2:]:
        plain.serve_plainly()
    note_openings()
    asyncio.run(serve(load_settings(OrchestratorConfig, Path(sys.argv[1]))))
