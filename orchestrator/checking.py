"""What an orchestrator's start would meet: looked at without serving, and beside one that serves.

Each look calls what the real start calls; nothing is written that stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio
from sqlalchemy import text

from common.clock import SystemClock
from common.disk import SYSTEM_DISK
from common.errors import RequestError
from common.findings import Findings
from common.surroundings import look_at_certificate, look_at_software, look_at_state, nearest
from common.tls import Role
from orchestrator.budgets import MIB, DiskReserve
from orchestrator.engines import engine_on, is_postgresql, opening, url_of
from orchestrator.enrolments import Signer
from orchestrator.leadership import AdvisoryLock, AnotherLeads
from orchestrator.listener import bind
from orchestrator.probe import check_health

if TYPE_CHECKING:
    from pathlib import Path

    from common.certificates import Certificate
    from common.clock import Clock
    from common.disk import Disk
    from orchestrator.config import OrchestratorConfig


class NotThisOrchestrators(RequestError):
    """A certificate does not name an orchestrator of the federation in the settings."""

    field = "tls.certificate"

    def __init__(self, path: Path, got: str, federation: str) -> None:
        super().__init__(
            f"{path} is of {got}, the settings are of an orchestrator of federation "
            f"{federation!r}: issue one with `fedgate pki issue --role orchestrator`, or correct "
            "`federation`"
        )


class Checking:
    """One look at an orchestrator's settings and all that they name."""

    def __init__(
        self, config: OrchestratorConfig, clock: Clock | None = None, disk: Disk = SYSTEM_DISK
    ) -> None:
        self.findings = Findings()
        self._config = config
        self._clock = clock or SystemClock()
        self._disk = disk

    async def look(self) -> None:
        """Look at everything."""
        look_at_software(self.findings)
        config = self._config
        self._look_at_identity(look_at_certificate(self.findings, config.tls, self._clock.wall()))
        serves = await check_health(config.health_socket_path)
        self._look_at_state()
        self._look_at_database(serves=serves)
        if config.enrolment is not None:
            with self.findings.looking_at("enrolment"):
                Signer.read(config)
                self.findings.ok("enrolment", "the authority that signs members is in order")
        if serves:
            self.findings.ok("address", f"an orchestrator serves now, at {_served(config)}")
            return
        await self._look_at_ports()

    def _look_at_identity(self, found: Certificate | None) -> None:
        config = self._config
        if found is None:
            return
        who = found.identity
        with self.findings.looking_at("identity"):
            if (who.role, who.federation) != (Role.ORCHESTRATOR, config.federation):
                raise NotThisOrchestrators(config.tls.certificate, who.uri, config.federation)

    def _look_at_state(self) -> None:
        """Say whether the folders can be written to, and have room."""
        config = self._config
        for folder in dict.fromkeys((config.state, config.shared or config.state)):
            look_at_state(self.findings, folder)
            with self.findings.looking_at("disk"):
                reserve = config.limits.disk_reserve_mib * MIB
                DiskReserve(self._disk, nearest(folder), reserve).check(0)
                free = self._disk.free(nearest(folder))
                self.findings.ok("disk", f"{free // MIB} MiB free for {folder}")

    def _look_at_database(self, *, serves: bool) -> None:
        """Say whether the journal opens, and whether another orchestrator leads over it."""
        with self.findings.looking_at("database"):
            url = url_of(self._config)
            if not is_postgresql(url):
                self._look_at_file(url)
                return
            lock = AdvisoryLock(url)
            try:
                with opening(url):
                    is_free = lock.try_hold()
            finally:
                lock.close()
            if not (is_free or serves):
                raise AnotherLeads
            self.findings.ok("database", "PostgreSQL answers" + (", nobody leads" * is_free))

    def _look_at_file(self, url: str) -> None:
        file = self._config.journal_file
        if not self._config.database and not file.exists():
            self.findings.ok("database", f"{file} is made by the first start")
            return
        engine = engine_on(url)
        try:
            with opening(url), engine.connect() as connection:
                found = connection.execute(text("PRAGMA quick_check")).scalar()
        finally:
            engine.dispose()
        self.findings.ok("database", f"SQLite opens; its own check says {found}")

    async def _look_at_ports(self) -> None:
        """Bind what the start would bind, and let it go."""
        config = self._config
        addresses = [config.address]
        addresses += [config.oidc.address] if config.oidc is not None else []
        addresses += [config.enrolment.address] if config.enrolment is not None else []
        for address in addresses:
            with self.findings.looking_at("address"):
                server = grpc.aio.server(options=config.http2.server_options())
                try:
                    bind(server, address, config.tls.server_credentials())
                finally:
                    await server.stop(None)
                self.findings.ok("address", f"{address} is free to listen on")


def _served(config: OrchestratorConfig) -> str:
    try:
        return config.address_file.read_text(encoding="utf-8")
    except OSError:
        return config.address
