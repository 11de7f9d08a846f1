"""Who comes in where: members by certificate, people by token, and who enrols with neither."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from common.errors import PermissionRefused
from orchestrator.auth import check_caller, check_person, check_tls
from orchestrator.callers import OpenCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from orchestrator.auth import Context
    from orchestrator.callers import Callers
    from orchestrator.enrolments import Enrolments
    from orchestrator.four_eyes import FourEyes
    from orchestrator.tokens import Tokens

ENROL = "/federation.v1.EnrolmentService/Enrol"


class Door(Protocol):
    """Decides on a call before any handler of it runs."""

    def admit(self, context: Context, method: str) -> AbstractAsyncContextManager[OpenCall]:
        """Lend the call that may go on inside the block; raise why it may not."""

    def look_at(self, call: OpenCall, method: str, request: Any) -> None:
        """Raise unless the one request of an admitted call may be handled."""


class EnrolOnly(PermissionRefused):
    """Something else than Enrol was called where nobody needs a certificate."""

    def __init__(self, method: str) -> None:
        super().__init__(
            f"{method} is not answered here: this address is for enrolling alone, call the "
            "orchestrator's own with a certificate"
        )


class MembersDoor:
    """Lets the federation's members in, each to what its role may call."""

    def __init__(
        self, federation: str, callers: Callers, four_eyes: FourEyes | None = None
    ) -> None:
        self._federation = federation
        self._callers = callers
        self._four_eyes = four_eyes

    @asynccontextmanager
    async def admit(self, context: Context, method: str) -> AsyncIterator[OpenCall]:
        """Lend a member's call, for as long as it is one."""
        connection = context.auth_context()
        caller = check_caller(connection, method, self._federation)
        async with self._callers.call(connection, caller) as call:
            yield call

    def look_at(self, call: OpenCall, method: str, request: Any) -> None:
        """Raise SecondPersonAwaited for what one person alone cannot do."""
        if self._four_eyes is not None:
            self._four_eyes.look_at(call.caller, method, request)


class PeopleDoor:
    """Lets people in by the tokens of their provider, each to what a role of theirs may call."""

    def __init__(
        self, federation: str, tokens: Tokens, callers: Callers, four_eyes: FourEyes | None = None
    ) -> None:
        self._federation = federation
        self._tokens = tokens
        self._callers = callers
        self._four_eyes = four_eyes

    @asynccontextmanager
    async def admit(self, context: Context, method: str) -> AsyncIterator[OpenCall]:
        """Lend a person's call, for as long as the token is good."""
        check_tls(context.auth_context())
        person = await self._tokens.person(context.invocation_metadata())
        caller = check_person(person, method, self._federation)
        still = partial(self._tokens.check_time, person.good_until)
        async with self._callers.person(caller, still, person.roles) as call:
            yield call

    def look_at(self, call: OpenCall, method: str, request: Any) -> None:
        """Raise SecondPersonAwaited for what one person alone cannot do."""
        if self._four_eyes is not None:
            self._four_eyes.look_at(call.caller, method, request)


class EnrolmentDoor:
    """Lets in whoever holds a token to enrol with that is still worth something, to use it."""

    def __init__(self, enrolments: Enrolments) -> None:
        self._enrolments = enrolments

    @asynccontextmanager
    async def admit(self, context: Context, method: str) -> AsyncIterator[OpenCall]:
        """Lend a call of somebody who has no name yet."""
        check_tls(context.auth_context())
        if method != ENROL:
            raise EnrolOnly(method)
        yield OpenCall()

    def look_at(self, call: OpenCall, method: str, request: Any) -> None:  # noqa: ARG002
        """Raise what refuses the token or the request to sign."""
        self._enrolments.check(request.secret, request.request)
