"""The federation's authority in folders, and keys for development that it signs.

    <folder>/ca.pem                             the root's certificate: everybody trusts it
    <folder>/root/ca.key  ca.pem                the root: take this folder off every network
    <folder>/intermediate/ca.pem cert.pem key.pem   what signs members: for the orchestrator
    <out>/ca.pem  cert.pem  key.pem             what one process is given

Whoever reads `root/ca.key` can be anyone in the federation, for ever; whoever reads
`intermediate/key.pem`, until the root signs another and the old one has ended.
"""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from common import issuing
from common.certificates import fingerprint, to_pem
from common.clock import SystemClock
from common.errors import RequestError
from common.ids import is_name
from common.issuing import Authority, Period, federation_of
from common.key_files import replace_pair, write_new
from common.tls import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "orchestrator")
CERTIFICATE_DAYS = 90
ROOT, INTERMEDIATE = "root", "intermediate"  # folders


class NotAName(RequestError):
    """A federation or the holder of a certificate cannot be called this."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text!r} cannot be a name: use up to 63 lower-case letters, digits, '-' and '.', "
            "a letter or digit first and last"
        )


class NotAnAuthority(RequestError):
    """A folder does not hold the certificate and key of an authority."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"no authority can be read from {folder} ({why}): make one with `fedgate pki init`"
        )


class HostsNotAllowed(RequestError):
    """Hosts are given for a role that nobody dials."""

    field = "hosts"

    def __init__(self, role: Role) -> None:
        super().__init__(f"a certificate for the role {role} names no hosts: leave them out")


class NotAHost(RequestError):
    """A host is neither a DNS name nor an IP address."""

    field = "hosts"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host!r} is neither a DNS name in ASCII nor an IP address: write it as it is "
            "dialled, such as fl.example.org or 192.0.2.1"
        )


def init(folder: Path, federation: str) -> str:
    """Make a root for `federation`, and an intermediate authority below it, in `folder`.

    Returns:
        The root's fingerprint, SHA-256 in hexadecimal.

    Raises:
        NotAName: `federation` cannot stand in a certificate's name.
        AlreadyThere: `folder` already holds an authority.
    """
    now = SystemClock().wall()
    root = issuing.make_root(_name(federation), now)
    pem = root.certificate_pem()
    write_new(folder / ROOT, {"ca.key": root.key_pem(), "ca.pem": pem})
    write_new(folder, {"ca.pem": pem})
    _write_intermediate(folder / INTERMEDIATE, root, issuing.make_intermediate(root, now))
    return fingerprint(root.certificate)


def renew_intermediate(root: Path, out: Path) -> None:
    """Make another intermediate authority in the new folder `out`, signed by the root in `root`.

    Raises:
        NotAnAuthority: `root` holds no root.
        AlreadyThere: a file in `out` would be overwritten.
    """
    signer = _read_authority(root, "ca.pem", "ca.key")
    _write_intermediate(out, signer, issuing.make_intermediate(signer, SystemClock().wall()))


def issue(  # noqa: PLR0913 - all that a certificate says
    folder: Path,
    *,
    role: Role,
    name: str,
    out: Path,
    hosts: Sequence[str] | None = None,
    days: int = CERTIFICATE_DAYS,
    replace: bool = False,
) -> Identity:
    """Make a key and a certificate for it in `out`, signed by the intermediate authority.

    Args:
        folder: where `init` made the authority.
        role: what the holder may be.
        name: the holder's name.
        out: a folder that holds none of ca.pem, cert.pem and key.pem.
        hosts: DNS names and addresses that an orchestrator is dialled by; None: `LOCAL_HOSTS`.
        days: how long the certificate is valid.
        replace: put cert.pem and key.pem in place of those in `out`, as one.

    Returns:
        The identity that the certificate carries.

    Raises:
        NotAName: `name` cannot stand in a certificate's name.
        NotAnAuthority: `folder` holds no authority.
        HostsNotAllowed: hosts are given, and the role is not the orchestrator's.
        NotAHost: a host is neither a DNS name nor an address.
        AlreadyThere: a file in `out` would be overwritten.
    """
    authority = read_authority(folder)
    root = _read(folder / INTERMEDIATE, "ca.pem")
    identity = Identity(federation_of(authority.certificate), role, _name(name))
    period = Period(SystemClock().wall(), timedelta(days=days))
    key, names = issuing.new_key(), hosts_of(role, hosts)
    certificate = issuing.certify(authority, key.public_key(), identity, period, names)
    chain, secret = to_pem([certificate, authority.certificate]), issuing.private_pem(key)
    if replace:
        replace_pair(out / "cert.pem", out / "key.pem", (chain, secret))
    else:
        write_new(out, {"ca.pem": root, "key.pem": secret, "cert.pem": chain})
    return identity


def read_authority(folder: Path) -> Authority:
    """Return the intermediate authority below `folder`; raise NotAnAuthority if there is none."""
    return _read_authority(folder / INTERMEDIATE, "cert.pem", "key.pem")


def hosts_of(role: Role, hosts: Sequence[str] | None) -> list[x509.GeneralName]:
    """Return the names that a certificate for `role` is dialled by.

    Raises:
        HostsNotAllowed: hosts are given, and the role is not the orchestrator's.
        NotAHost: a host is neither a DNS name nor an address.
    """
    if role is Role.ORCHESTRATOR:
        return [_host(host) for host in hosts or LOCAL_HOSTS]
    if hosts:
        raise HostsNotAllowed(role)
    return []


def _write_intermediate(out: Path, root: Authority, authority: Authority) -> None:
    files = {"ca.pem": root.certificate_pem(), "cert.pem": authority.certificate_pem()}
    write_new(out, {**files, "key.pem": authority.key_pem()})


def _read_authority(folder: Path, certificate: str, key: str) -> Authority:
    pem, secret = _read(folder, certificate), _read(folder, key)
    try:
        found, private = x509.load_pem_x509_certificate(pem), load_pem_private_key(secret, None)
    except (TypeError, ValueError) as error:
        raise NotAnAuthority(folder, f"{certificate} or {key} is not what its name says") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise NotAnAuthority(folder, f"{key} is not a key on an elliptic curve")
    if private.public_key() != found.public_key():
        raise NotAnAuthority(folder, f"{key} does not belong to {certificate}")
    return Authority(found, private)


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise NotAnAuthority(folder, f"{error.filename}: {error.strerror}") from error


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    labels = text.removeprefix("*.").removesuffix(".").split(".")
    if not all(each.replace("-", "").isalnum() and each.isascii() for each in labels):
        raise NotAHost(text)
    return x509.DNSName(text)


def _name(text: str) -> str:
    if not is_name(text):
        raise NotAName(text)
    return text
