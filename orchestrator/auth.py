"""Who is calling, from the client certificate, and what that role may call: default deny."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import PermissionRefused, RequestError
from common.ids import GatewayId
from common.tls import Identity, Role, identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

_MEMBERS = frozenset(Role)
_GATEWAYS = frozenset({Role.GATEWAY})
_OPERATORS = frozenset({Role.OPERATOR})
_READERS = frozenset({Role.ADMIN, Role.OPERATOR, Role.AUDITOR, Role.VIEWER})
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
    "/federation.v1.OperatorService/WatchRun": _READERS,
    "/federation.v1.OperatorService/ListRuns": _READERS,
    "/federation.v1.OperatorService/FetchWeights": _OPERATORS | {Role.AUDITOR},
    "/grpc.health.v1.Health/Check": _MEMBERS,
    "/grpc.health.v1.Health/List": _MEMBERS,
    "/grpc.health.v1.Health/Watch": _MEMBERS,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _MEMBERS,
}
SERVICES = tuple(dict.fromkeys(method.split("/")[1] for method in PERMISSIONS))
_TLS_VERSION = b"TLSv1.3"


class Unauthenticated(RequestError):
    """The connection does not say who is calling."""


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

    def __init__(self, role: Role, method: str) -> None:
        allowed = ", ".join(sorted(PERMISSIONS.get(method, ()))) or "nobody"
        super().__init__(
            f"the role {role} in the client certificate may not call {method} ({allowed} may): "
            "call with a certificate for another role"
        )


def identity(connection: Mapping[str, Iterable[bytes]]) -> Identity:
    """Return who a connection's certificate names; raise IdentityMissing."""
    for name in connection.get("x509_subject_alternative_name", []):
        found = identity_of(name.decode(errors="replace"))
        if found is not None:
            return found
    raise IdentityMissing


def check_caller(connection: Mapping[str, Iterable[bytes]], method: str, federation: str) -> None:
    """Raise unless whoever is behind `connection` may call `method`, "/service/name".

    Raises:
        TlsTooOld, IdentityMissing, ForeignFederation: nobody of this federation is calling.
        RoleRefused: the caller's role may not call the method.
    """
    version = b"".join(connection.get("ssl_tls_version", []))
    if version != _TLS_VERSION:
        raise TlsTooOld(version.decode(errors="replace"))
    caller = identity(connection)
    if caller.federation != federation:
        raise ForeignFederation(got=caller.federation, need=federation)
    if caller.role not in PERMISSIONS.get(method, frozenset()):
        raise RoleRefused(caller.role, method)


def calling_gateway(context: Context) -> GatewayId:
    """Return the name of the gateway that is calling."""
    return GatewayId(identity(context.auth_context()).name)
