"""A gateway's certificate follows its predecessor by itself, for a key that is made here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import structlog

from common.errors import FederationError
from common.renewing import due, present, renew_files

if TYPE_CHECKING:
    from common.clock import Clock
    from common.tls import TlsFiles
    from gateway.client import GrpcClient

LOOK_S = 60.0  # between two looks at the time of day: a machine may have slept
PAUSE = 10  # so many times as long after a renewal that failed

log = structlog.get_logger()


class Renewal:
    """Renews the certificate in a gateway's settings when two thirds of its life are over."""

    def __init__(
        self, files: TlsFiles, client: GrpcClient, clock: Clock, *, look_s: float = LOOK_S
    ) -> None:
        """Ask `client` for a new certificate; look every `look_s` whether one is needed."""
        self._files = files
        self._client = client
        self._clock = clock
        self._look_s = look_s

    async def run(self) -> NoReturn:
        """Renew for ever, and call with the newest; a renewal that fails is tried again."""
        wait_s = self._look_s
        while True:
            await self._clock.sleep_until(self._clock.now() + wait_s)
            wait_s = self._look_s
            try:
                if due(present(self._files)) > self._clock.wall():
                    continue
                ends = await renew_files(self._files, self._client.renew)
            except FederationError as error:
                log.warning("certificate_not_renewed", why=str(error))
                wait_s = PAUSE * self._look_s
                continue
            self._client.redial()
            log.info("certificate_renewed", ends=ends.isoformat())
