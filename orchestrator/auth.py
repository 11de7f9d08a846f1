"""Who is calling, from the client certificate or a token, and what they may call: default deny."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import PermissionRefused
from common.ids import GatewayId
from common.tls import PEOPLE, Identity, Role, identity_of
from orchestrator.callers import OpenCall, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

_MEMBERS = frozenset(Role)
_GATEWAYS = frozenset({Role.GATEWAY})
_OPERATORS = frozenset({Role.OPERATOR})
_ADMINS = frozenset({Role.ADMIN})
_AUDITORS = frozenset({Role.ADMIN, Role.AUDITOR})
_READERS = PEOPLE
PERMISSIONS: Mapping[str, frozenset[Role]] = {  # by method; a method that is not here is refused
    "/federation.v1.GatewayService/Register": _GATEWAYS,
    "/federation.v1.GatewayService/GetConfig": _GATEWAYS,
    "/federation.v1.GatewayService/AcceptPlan": _GATEWAYS,
    "/federation.v1.GatewayService/Watch": _GATEWAYS,
    "/federation.v1.GatewayService/FetchWeights": _GATEWAYS,
    "/federation.v1.GatewayService/GetUpload": _GATEWAYS,
    "/federation.v1.GatewayService/SubmitUpdate": _GATEWAYS,
    "/federation.v1.GatewayService/GetLedgerHead": _GATEWAYS,
    "/federation.v1.OperatorService/UploadWeights": _OPERATORS,
    "/federation.v1.OperatorService/StartRun": _OPERATORS,
    "/federation.v1.OperatorService/CancelRun": _OPERATORS,
    "/federation.v1.OperatorService/RecordScores": _OPERATORS,
    "/federation.v1.OperatorService/ReleaseGateway": _OPERATORS | {Role.ADMIN},
    "/federation.v1.OperatorService/CreateWebLink": _READERS,
    "/federation.v1.OperatorService/WatchRun": _READERS,
    "/federation.v1.OperatorService/ListRuns": _READERS,
    "/federation.v1.OperatorService/GetSignatures": _READERS,
    "/federation.v1.OperatorService/FetchWeights": _OPERATORS | {Role.AUDITOR},
    "/federation.v1.EnrolmentService/Enrol": frozenset(),  # at the enrolment address alone
    "/federation.v1.EnrolmentService/Renew": _MEMBERS - {Role.ORCHESTRATOR},
    "/federation.v1.MembershipService/CreateToken": _ADMINS,
    "/federation.v1.MembershipService/Certify": _ADMINS,
    "/federation.v1.MembershipService/ListMembers": _ADMINS,
    "/federation.v1.MembershipService/Revoke": _ADMINS,
    "/federation.v1.AuditService/ListRecords": _AUDITORS,
    "/federation.v1.AuditService/ListCheckpoints": _AUDITORS,
    "/federation.v1.AuditService/GetCheckpoint": _AUDITORS | _GATEWAYS,
    "/federation.v1.AuditService/GetLineage": _READERS,
    "/grpc.health.v1.Health/Check": _MEMBERS,
    "/grpc.health.v1.Health/List": frozenset(),  # gRPC registers it and does not answer it
    "/grpc.health.v1.Health/Watch": _MEMBERS,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _MEMBERS,
}
SERVICES = tuple(dict.fromkeys(method.split("/")[1] for method in PERMISSIONS))
_OF_CERTIFICATES = "federation.v1.EnrolmentService"  # of no use to whoever calls with a token
SERVICES_OF_PEOPLE = tuple(
    service
    for service in SERVICES
    if service != _OF_CERTIFICATES
    and any(roles & PEOPLE for method, roles in PERMISSIONS.items() if f"/{service}/" in method)
)
_TLS_VERSION = b"TLSv1.3"
_CALL: ContextVar[OpenCall] = ContextVar("call")  # that this task answers


@dataclass(frozen=True)
class Person:
    """Who a token says is calling."""

    name: str
    roles: frozenset[Role]  # some of PEOPLE
    good_until: float  # seconds since 1970; the token says nothing afterwards


class IdentityMissing(Unauthenticated):
    """The certificate names nobody of a federation."""

    def __init__(self) -> None:
        super().__init__(
            "the client certificate holds no URI fed://<federation>/<role>/<name> in its subject "
            "alternative name: issue it with `fedgate pki issue`"
        )


class ForeignFederation(Unauthenticated):
    """The certificate names a member of another federation."""

    def __init__(self, *, got: str, need: str) -> None:
        super().__init__(f"the client certificate is of federation {got!r}, this is {need!r}")


class TlsTooOld(Unauthenticated):
    """The connection is not TLS 1.3."""

    def __init__(self, got: str) -> None:
        super().__init__(f"the connection is {got or 'not TLS'}, TLS 1.3 is needed")


class RoleRefused(PermissionRefused):
    """The caller's role may not call this method."""

    def __init__(
        self, roles: Iterable[Role], method: str, *, by: str = "certificate", name: str = ""
    ) -> None:
        self.name = name  # of a caller without a certificate
        allowed = ", ".join(sorted(PERMISSIONS.get(method, ()))) or "nobody"
        super().__init__(
            f"the role {' or '.join(sorted(roles))} of the caller's {by} may not call {method} "
            f"({allowed} may): call as somebody of another role"
        )


def identity(connection: Mapping[str, Iterable[bytes]]) -> Identity:
    """Return who a connection's certificate names; raise IdentityMissing."""
    for name in connection.get("x509_subject_alternative_name", []):
        found = identity_of(name.decode(errors="replace"))
        if found is not None:
            return found
    raise IdentityMissing


def known(connection: Mapping[str, Iterable[bytes]]) -> Identity | None:
    """Return who a connection's certificate names, or None."""
    try:
        return identity(connection)
    except IdentityMissing:
        return None


def presented(connection: Mapping[str, Iterable[bytes]]) -> str:
    """Return the first name in a connection's certificate, whatever it is worth."""
    names = list(connection.get("x509_subject_alternative_name", []))
    return names[0].decode(errors="replace") if names else "nobody"


def check_caller(
    connection: Mapping[str, Iterable[bytes]], method: str, federation: str
) -> Identity:
    """Return who is behind `connection`; raise unless they may call `method`, "/service/name".

    Raises:
        TlsTooOld, IdentityMissing, ForeignFederation: nobody of this federation is calling.
        RoleRefused: the caller's role may not call the method.
    """
    check_tls(connection)
    caller = identity(connection)
    if caller.federation != federation:
        raise ForeignFederation(got=caller.federation, need=federation)
    if caller.role not in PERMISSIONS.get(method, frozenset()):
        raise RoleRefused([caller.role], method)
    return caller


def check_person(person: Person, method: str, federation: str, by: str = "token") -> Identity:
    """Return as whom `person` calls `method`, in a role that may; raise RoleRefused.

    What says who they are is `by`.
    """
    allowed = person.roles & PERMISSIONS.get(method, frozenset()) & PEOPLE
    if not allowed:
        raise RoleRefused(person.roles, method, by=by, name=person.name)
    return Identity(federation, min(allowed), person.name)


def check_tls(connection: Mapping[str, Iterable[bytes]]) -> None:
    """Raise TlsTooOld unless the connection is TLS 1.3."""
    version = b"".join(connection.get("ssl_tls_version", []))
    if version != _TLS_VERSION:
        raise TlsTooOld(version.decode(errors="replace"))


def set_call(call: OpenCall) -> None:
    """Keep the call that this task answers."""
    _CALL.set(call)


def call_under_way() -> OpenCall:
    """Return the call that this task answers; raise IdentityMissing."""
    if (call := _CALL.get(None)) is None:
        raise IdentityMissing
    return call


def calling() -> Identity:
    """Return who makes the call that this task answers; raise IdentityMissing."""
    if (caller := call_under_way().caller) is None:
        raise IdentityMissing
    return caller


def calling_gateway(context: Context) -> GatewayId:
    """Return the name of the gateway that is calling."""
    return GatewayId(identity(context.auth_context()).name)
