"""The orchestrator: opens rounds, averages updates, publishes models; knows no data and no task."""

from __future__ import annotations
