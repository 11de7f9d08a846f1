"""Figures for Prometheus: served over HTTP, and those that both sides have of themselves."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Info, ProcessCollector, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from common.errors import FederationError
from common.listening import AddressTaken
from common.renewing import present
from common.version import SOFTWARE_VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from prometheus_client import Metric

    from common.tls import TlsFiles

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


class CertificateEnd(Collector):
    """When this process's certificate ends, as its file says now."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files

    def collect(self) -> Iterator[Metric]:
        """Yield the one figure; none while the file cannot be read."""
        try:
            ends = present(self._files).ends
        except FederationError:
            return
        yield GaugeMetricFamily(
            "fedgate_certificate_not_after_timestamp_seconds",
            "When the certificate of this process ends, in seconds since 1970.",
            value=ends.timestamp(),
        )


def registry_of(files: TlsFiles) -> CollectorRegistry:
    """Return a registry with what each process says: its version, itself, its certificate."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Info("fedgate_build", "The version that runs.", registry=registry).info(
        {"version": SOFTWARE_VERSION}
    )
    registry.register(CertificateEnd(files))
    return registry


@asynccontextmanager
async def exposed(address: str, registry: CollectorRegistry) -> AsyncIterator[str]:
    """Answer Prometheus inside the block, in threads; lend host:port with the port that was taken.

    Raises:
        AddressTaken: another process has it, or this machine does not.
    """
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, OverflowError) as error:
        raise AddressTaken(address, "metrics.address") from error
    try:
        yield f"{host}:{server.server_port}"
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
