"""Who this gateway is: the name in its certificate."""

from __future__ import annotations

from pathlib import Path

from common.certificate_keys import identity_in
from common.errors import RequestError
from common.ids import GatewayId
from common.tls import Identity, Role


class NotAGatewaysCertificate(RequestError):
    """The certificate in the settings does not name a gateway."""

    field = "tls.certificate"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} does not name a gateway (fed://<federation>/gateway/<name>): issue one with "
            "`fedgate pki issue --role gateway --name NAME`"
        )


def gateway_identity(certificate: Path) -> Identity:
    """Return who the gateway of a certificate file is; raise NotAGatewaysCertificate."""
    try:
        identity = identity_in(certificate.read_bytes())
    except OSError as error:
        raise NotAGatewaysCertificate(certificate) from error
    if identity is None or identity.role is not Role.GATEWAY:
        raise NotAGatewaysCertificate(certificate)
    return identity


def gateway_name(certificate: Path) -> GatewayId:
    """Return the gateway's name in a certificate file; raise NotAGatewaysCertificate."""
    return GatewayId(gateway_identity(certificate).name)
