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
ROLES: Mapping[str, frozenset[Role]] = {  # by service; a service that is not here is refused
    "federation.v1.GatewayService": frozenset({Role.GATEWAY}),
    "federation.v1.OperatorService": frozenset({Role.OPERATOR}),
    "grpc.health.v1.Health": _MEMBERS,
    "grpc.reflection.v1alpha.ServerReflection": _MEMBERS,
}
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
    """The caller's role may not call this service."""

    def __init__(self, role: Role, service: str) -> None:
        super().__init__(f"the role {role} in the client certificate may not call {service}")


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
        RoleRefused: the caller's role may not call the service.
    """
    version = b"".join(connection.get("ssl_tls_version", []))
    if version != _TLS_VERSION:
        raise TlsTooOld(version.decode(errors="replace"))
    caller = identity(connection)
    if caller.federation != federation:
        raise ForeignFederation(got=caller.federation, need=federation)
    service = method.split("/")[1]
    if caller.role not in ROLES.get(service, frozenset()):
        raise RoleRefused(caller.role, service)


def calling_gateway(context: Context) -> GatewayId:
    """Return the name of the gateway that is calling."""
    return GatewayId(identity(context.auth_context()).name)
