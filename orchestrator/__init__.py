"""The orchestrator: opens rounds, averages updates, publishes models; knows no data and no task."""

from __future__ import annotations

import sys

from common.python import require

require(*sys.version_info[:2])
