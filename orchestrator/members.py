"""The federation's members as a server needs them: watched over, and let in to enrol."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from common.listening import write_atomically
from orchestrator.callers import Callers
from orchestrator.doors import EnrolmentDoor
from orchestrator.enrolment_service import EnrolmentService, MembershipService
from orchestrator.listener import bind
from orchestrator.quotas import Quotas
from orchestrator.roster import Roster
from orchestrator.rpc_errors import GuardingInterceptor
from protos.federation.v1.enrolment_pb2_grpc import (
    add_EnrolmentServiceServicer_to_server,
    add_MembershipServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import NoReturn

    from common.clock import Clock
    from orchestrator.config import OrchestratorConfig
    from orchestrator.enrolments import Enrolments
    from orchestrator.orchestrator import Orchestrator

LARGEST_REQUEST = 16 << 10  # bytes, of anybody who can reach the enrolment address
MOST_AT_ONCE = 64

log = structlog.get_logger()


class Members:
    """Who is let in, who no longer, and who joins."""

    def __init__(
        self, config: OrchestratorConfig, orchestrator: Orchestrator, clock: Clock
    ) -> None:
        """Read who was turned away; raise what `refuse_unfit` does."""
        self._refused_callers = orchestrator.refused_callers
        self._refused_calls = orchestrator.refused_calls
        self._tally = orchestrator.tally
        self._config = config
        self.callers = Callers(clock)
        self.roster = Roster(orchestrator.fence, clock, self.callers, orchestrator.audit)
        self._fence = orchestrator.fence
        self._clock = clock
        self.roster.refresh()
        if config.enrolment is not None:
            self.enrolments.refuse_unfit()

    @cached_property
    def enrolments(self) -> Enrolments:
        """What is signed here; its libraries take 10 MiB that an orchestrator may do without."""
        from orchestrator.enrolments import Enrolments  # noqa: PLC0415

        return Enrolments(self._config, self._fence, self._clock, self.roster)

    def serve_renewal_on(self, server: grpc.aio.Server) -> None:
        """Answer members who have a certificate, on `server`."""
        service = EnrolmentService(lambda: self.enrolments, self._refused_calls)
        add_EnrolmentServiceServicer_to_server(service, server)

    def serve_admins_on(self, server: grpc.aio.Server) -> None:
        """Answer admins, on `server`."""
        service = MembershipService(lambda: self.enrolments, self.roster, self._refused_calls)
        add_MembershipServiceServicer_to_server(service, server)

    @asynccontextmanager
    async def watched_over(self, halt: Callable[[BaseException], None]) -> AsyncIterator[None]:
        """Look for revocations inside the block; `halt` if that breaks: nobody goes unwatched."""

        def broke(looking: asyncio.Task[NoReturn]) -> None:
            if not looking.cancelled() and (error := looking.exception()) is not None:
                log.error("revocations_not_watched", exc_info=error)
                halt(error)

        looking = asyncio.create_task(self.roster.keep_looking(), name="revocations")
        looking.add_done_callback(broke)
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    @asynccontextmanager
    async def enrolling(self) -> AsyncIterator[None]:
        """Answer the holders of tokens inside the block, if the settings say where."""
        if (enrolment := self._config.enrolment) is None:
            yield
            return
        options = [
            *self._config.http2.server_options(),
            *self._config.limits.server_options(),
            ("grpc.max_receive_message_length", LARGEST_REQUEST),
        ]
        quotas = Quotas(self._config.limits)
        guard = GuardingInterceptor(
            EnrolmentDoor(self.enrolments), quotas, self._refused_callers, self._tally
        )
        server = grpc.aio.server(
            interceptors=[guard], options=options, maximum_concurrent_rpcs=MOST_AT_ONCE
        )
        service = EnrolmentService(lambda: self.enrolments, self._refused_callers)
        add_EnrolmentServiceServicer_to_server(service, server)
        served = bind(server, enrolment.address, self._config.tls.open_credentials())
        await server.start()
        self.enrolments.address = enrolment.advertised or served
        write_atomically(self._config.enrolment_address_file, served)
        log.info("enrolling", address=served, advertised=self.enrolments.address)
        try:
            yield
        finally:
            self._config.enrolment_address_file.unlink(missing_ok=True)
            await server.stop(None)
