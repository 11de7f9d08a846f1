"""Who this gateway is: the name in its certificate."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from common.errors import RequestError
from common.ids import GatewayId
from common.tls import Role, identity_of


class NotAGatewaysCertificate(RequestError):
    """The certificate in the settings does not name a gateway."""

    field = "tls.certificate"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} does not name a gateway (fed://<federation>/gateway/<name>): issue one with "
            "`fedgate pki issue --role gateway --name NAME`"
        )


def gateway_name(certificate: Path) -> GatewayId:
    """Return the gateway's name in a certificate file; raise NotAGatewaysCertificate."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise NotAGatewaysCertificate(certificate) from error
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        identity = identity_of(uri)
        if identity is not None and identity.role is Role.GATEWAY:
            return GatewayId(identity.name)
    raise NotAGatewaysCertificate(certificate)
