"""Why an orchestrator cannot be reached, in a sentence: made of what gRPC says of a failed call."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from common.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# in this order gRPC looks at them; it knows neither capital letters nor `all_proxy`
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
EXEMPT = ("no_grpc_proxy", "no_proxy")


class Unreachable(UnavailableError):
    """No call can be made to an address."""

    field = "address"


class HostUnknown(Unreachable):
    """A host's name leads nowhere."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address}: this machine finds no such host: correct `address`, or give the name to "
            "its DNS or to /etc/hosts"
        )


class NothingListens(Unreachable):
    """A host answers that the port is closed."""

    def __init__(self, address: str, tried: str) -> None:
        way = "start the orchestrator, or correct host and port in `address`"
        if ":" in tried:
            way = (
                'start the orchestrator, let it listen on "[::]:PORT" where its own `address` is '
                "an IPv4 one such as 0.0.0.0:PORT, or name its IPv4 address here"
            )
        kind = "IPv6 " if ":" in tried else ""
        super().__init__(f"{address}: nothing listens there, tried was {kind}{tried}: {way}")


class NoWay(Unreachable):
    """No packet gets to a host, or none comes back."""

    def __init__(self, address: str, tried: str, why: str) -> None:
        kind = "IPv6 address" if ":" in tried else "address"
        super().__init__(
            f"{address}: no connection to the {kind} {tried or 'it has'} ({why}): open the way to "
            "that host and port in the firewall, or name in `address` one that this machine has a "
            "route to"
        )


class ProxyInTheWay(Unreachable):
    """gRPC goes through a proxy, which does not let it."""

    def __init__(self, address: str, variable: str, proxy: str, why: str) -> None:
        host = host_of(address)
        super().__init__(
            f"{address}: the environment's {variable} = {proxy} sends the call to a proxy, which "
            f"fails ({why}): let it tunnel to this host and port, or set no_proxy={host}"
        )


class NotTls(Unreachable):
    """Something listens that speaks no TLS."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address}: what listens there speaks no TLS, so it is not the orchestrator: correct "
            "the port in `address`"
        )


class HostNotInCertificate(Unreachable):
    """The orchestrator's certificate is for other names than the one that was called."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address}: the orchestrator's certificate is not for the host {host_of(address)}: "
            "issue it with `--host`, or name in `address` a host that it is for"
        )


class AuthorityUnknown(Unreachable):
    """The orchestrator's certificate is of another authority than the one that is trusted."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address}: the orchestrator's certificate is not signed by the authority in "
            "`tls.authority`: put the ca.pem of its federation there, or correct `address`"
        )


class CertificateNotInForce(Unreachable):
    """The orchestrator's certificate is over, or has not begun, by the clock of this machine."""

    def __init__(self, address: str, *, over: bool) -> None:
        when = "is over" if over else "has not begun"
        super().__init__(
            f"{address}: by this machine's clock the orchestrator's certificate {when}: set the "
            "clock right if it is wrong, else have the orchestrator's operator issue a new one"
        )


class HandshakeFailed(Unreachable):
    """TLS does not come about for another reason."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            f"{address}: the TLS handshake failed: check that both certificates are of one "
            f"authority, valid today and for this host ({why})"
        )


class NotLetIn(Unreachable):
    """The orchestrator ends a connection that has begun: as it stops, or for the certificate."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address}: the connection was closed as it began: the orchestrator is stopping, or "
            "does not take what [tls] shows it (a certificate of another authority, one that is "
            "out of date by its clock, or a token where certificates are asked for): if this "
            "stays, enrol anew or correct `address`"
        )


def host_of(address: str) -> str:
    """Return the host in host:port."""
    return address.rpartition(":")[0].strip("[]")


def proxy_for(address: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the variable and the proxy that gRPC goes through to `address`, or None."""
    found = next(((name, environment[name]) for name in PROXIES if environment.get(name)), None)
    exempt = next((environment[name] for name in EXEMPT if environment.get(name)), "")
    host = host_of(address)
    if found is None or any(_covers(each.strip(), host) for each in exempt.split(",")):
        return None
    return found[0], re.sub(r"//[^/@]*@", "//***@", found[1])  # without user and password


def _covers(entry: str, host: str) -> bool:
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:  # a name: it covers what ends in it
        return bool(entry) and host.lower().endswith(entry.lower())


def unreachable(address: str, details: str, environment: Mapping[str, str]) -> UnavailableError:
    """Return the error that gRPC's `details` of an unavailable server stand for."""
    said = details.lower()
    proxy = proxy_for(address, environment)
    if proxy is not None and ("http proxy" in said or "failed to connect to remote" in said):
        return ProxyInTheWay(address, *proxy, _last(details))
    for signs, make in _SIGNS:
        if any(sign in said for sign in signs):
            return make(address, details)
    return UnavailableError(f"{address}: {details}")


def _tried(details: str) -> str:
    """Return the last network address that gRPC tried."""
    found = re.search(r"ipv4:([\d.]+):\d+|ipv6:(?:%5B|\[)(.*?)(?:%5D|\])", details)
    return "" if found is None else found[1] or found[2]


def _last(details: str) -> str:
    return details.rpartition(": ")[2].strip()


_SIGNS: tuple[tuple[tuple[str, ...], Callable[[str, str], UnavailableError]], ...] = (
    (("hostname verification",), lambda address, _: HostNotInCertificate(address)),
    (("wrong_version_number",), lambda address, _: NotTls(address)),
    (
        ("certificate has expired",),
        lambda address, _: CertificateNotInForce(address, over=True),
    ),
    (
        ("certificate is not yet valid",),
        lambda address, _: CertificateNotInForce(address, over=False),
    ),
    (
        ("unable to get local issuer", "self signed certificate", "self-signed certificate"),
        lambda address, _: AuthorityUnknown(address),
    ),
    (("handshake", "certificate"), HandshakeFailed),
    (
        ("errors resolving", "dns resolution failed", "domain name not found"),
        lambda address, _: HostUnknown(address),
    ),
    (
        ("connection refused",),
        lambda address, details: NothingListens(address, _tried(details)),
    ),
    (
        ("failed to connect to remote", "timeout occurred", "unreachable"),
        lambda address, details: NoWay(address, _tried(details), _last(details)),
    ),
    (("failed to connect to all addresses",), lambda address, _: NotLetIn(address)),
)
