"""Who comes in where: members by their certificates, and the holders of tokens, to enrol."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from common.errors import PermissionRefused
from orchestrator.auth import check_caller, check_version
from orchestrator.callers import OpenCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from orchestrator.auth import Context
    from orchestrator.callers import Callers
    from orchestrator.enrolments import Enrolments

ENROL = "/federation.v1.EnrolmentService/Enrol"


class Door(Protocol):
    """Decides on a call before any handler of it runs."""

    def admit(
        self, context: Context, method: str, request: Any
    ) -> AbstractAsyncContextManager[OpenCall]:
        """Lend the call that may go on inside the block; raise why it may not."""


class EnrolOnly(PermissionRefused):
    """Something else than Enrol was called where nobody needs a certificate."""

    def __init__(self, method: str) -> None:
        super().__init__(
            f"{method} is not answered here: this address is for enrolling alone, call the "
            "orchestrator's own with a certificate"
        )


class MembersDoor:
    """Lets the federation's members in, each to what its role may call."""

    def __init__(self, federation: str, callers: Callers) -> None:
        self._federation = federation
        self._callers = callers

    @asynccontextmanager
    async def admit(self, context: Context, method: str, request: Any) -> AsyncIterator[OpenCall]:  # noqa: ARG002
        """Lend a member's call, for as long as it is one."""
        connection = context.auth_context()
        check_caller(connection, method, self._federation)
        async with self._callers.call(connection) as call:
            yield call


class TokensDoor:
    """Lets in whoever holds a token that is still worth something, to use it."""

    def __init__(self, enrolments: Enrolments) -> None:
        self._enrolments = enrolments

    @asynccontextmanager
    async def admit(self, context: Context, method: str, request: Any) -> AsyncIterator[OpenCall]:
        """Lend the call of a token's holder."""
        check_version(context.auth_context())
        if method != ENROL:
            raise EnrolOnly(method)
        self._enrolments.check(request.secret, request.request)
        yield OpenCall()
