"""What gRPC says of a failed call, in a sentence that says what to do."""

from __future__ import annotations

import pytest

from common.errors import UnavailableError
from common.unreachable import (
    AuthorityUnknown,
    CertificateNotInForce,
    HandshakeFailed,
    HostNotInCertificate,
    HostUnknown,
    NothingListens,
    NotLetIn,
    NotTls,
    NoWay,
    ProxyInTheWay,
    proxy_for,
    unreachable,
)

HERE = "clinic.example:8443"
ALL = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:8443: "
TLS = f"{ALL}Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1: "


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        (f"{ALL}Failed to connect to remote host: Connection refused", NothingListens),
        (f"{ALL}Failed to connect to remote host: Network is unreachable", NoWay),
        (f"{ALL}Failed to connect to remote host: Timeout occurred: FD Shutdown", NoWay),
        (f"{ALL}Socket closed", NotLetIn),
        (f"{TLS}CERTIFICATE_VERIFY_FAILED: unable to get local issuer", AuthorityUnknown),
        (f"{TLS}CERTIFICATE_VERIFY_FAILED: certificate has expired", CertificateNotInForce),
        (f"{TLS}CERTIFICATE_VERIFY_FAILED: certificate is not yet valid", CertificateNotInForce),
        (f"{TLS}WRONG_VERSION_NUMBER", NotTls),
        (f"{ALL}Handshake read failed (Endpoint closing)", HandshakeFailed),
        ("Hostname Verification Check failed.", HostNotInCertificate),
        ("errors resolving clinic.example:8443: [Domain name not found]", HostUnknown),
        ("DNS resolution failed for clinic.example:8443: C-ares status", HostUnknown),
        ("the server is draining", UnavailableError),
    ],
)
def test_each_way_to_fail_has_an_error_of_its_own(details, kind):
    error = unreachable(HERE, details, {})
    assert type(error) is kind
    assert str(error).startswith(f"{HERE}: ")


def test_a_certificate_that_is_over_is_told_from_one_that_has_not_begun():
    over = unreachable(HERE, "certificate has expired", {})
    early = unreachable(HERE, "certificate is not yet valid", {})
    assert "certificate is over" in str(over)
    assert "certificate has not begun" in str(early)


def test_an_address_of_ipv6_is_named_as_such():
    details = ALL.replace("ipv4:10.0.0.1", "ipv6:%5B2001:db8::1%5D")
    refused = unreachable(
        HERE, f"{details}Failed to connect to remote host: Connection refused", {}
    )
    away = unreachable(
        HERE, f"{details}Failed to connect to remote host: Network is unreachable", {}
    )
    assert "tried was IPv6 2001:db8::1" in str(refused)
    assert "the IPv6 address 2001:db8::1 (Network is unreachable)" in str(away)


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"http_proxy": "http://p:1"}, ("http_proxy", "http://p:1")),
        ({"http_proxy": "http://p:1", "grpc_proxy": "http://q:2"}, ("grpc_proxy", "http://q:2")),
        ({"HTTPS_PROXY": "http://p:1"}, None),  # gRPC looks at small letters alone
        ({"https_proxy": "http://me:secret@p:1"}, ("https_proxy", "http://***@p:1")),
        ({"https_proxy": "http://p:1", "no_proxy": "other,.example"}, None),
        ({"https_proxy": "http://p:1", "no_grpc_proxy": "other", "no_proxy": ".example"}, True),
        ({"https_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, True),
    ],
)
def test_the_proxy_is_the_one_that_grpc_goes_through(environment, proxy):
    found = proxy_for(HERE, environment)
    assert found == (("https_proxy", "http://p:1") if proxy is True else proxy)


def test_networks_that_need_no_proxy_are_understood():
    environment = {"https_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}
    assert proxy_for("10.1.2.3:8443", environment) is None


def test_a_proxy_that_does_not_answer_is_named():
    environment = {"https_proxy": "http://p:1"}
    details = f"{ALL}Failed to connect to remote host: Connection refused"
    error = unreachable(HERE, details, environment)
    assert isinstance(error, ProxyInTheWay)
    assert "https_proxy = http://p:1" in str(error)
    assert "(Connection refused)" in str(error)
