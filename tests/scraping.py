"""What a process exposes to Prometheus, read as Prometheus reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 10.0


class Figures:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self._samples: Mapping[tuple[str, frozenset], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._samples.get((name, frozenset(labels.items())))

    @property
    def names(self) -> set[str]:
        """The name of every sample."""
        return {name for name, _ in self._samples}

    @property
    def labels(self) -> set[tuple[str, str]]:
        """Every label with every value."""
        return {pair for _, labels in self._samples for pair in labels}


async def scrape(address: str) -> Figures:
    """Return what the process at `address` exposes now."""
    return Figures(await asyncio.to_thread(_get, f"http://{address}/metrics"))


def _get(url: str) -> str:
    with urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310 - one of ours
        return answer.read().decode()
