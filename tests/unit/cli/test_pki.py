"""What the development authority puts into a certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cli import pki
from common import issuing
from common.issuing import AuthorityExpired, Period
from common.tls import Identity, Role, identity_of

NOWHERE = Path("/nonexistent")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority():
    """The authority of the federation `clinics`, made at noon on 1 March 2026."""
    return issuing.make_intermediate(issuing.make_root("clinics", NOW), NOW)


@pytest.fixture
def certify(authority):
    """A certificate of that authority, for ten days."""

    def make(role, name="north", hosts=None):
        identity = Identity("clinics", role, name)
        key, period = issuing.new_key().public_key(), Period(NOW, timedelta(days=10))
        return issuing.certify(authority, key, identity, period, pki.hosts_of(role, hosts))

    return make


def names_of(certificate, kind):
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(kind)


@pytest.mark.parametrize("role", Role)
def test_a_certificate_names_its_holder_by_uri(certify, role):
    (uri,) = names_of(certify(role), x509.UniformResourceIdentifier)
    assert identity_of(uri) == Identity("clinics", role, "north")


@pytest.mark.parametrize(
    ("role", "purpose"),
    [
        (Role.ORCHESTRATOR, ExtendedKeyUsageOID.SERVER_AUTH),
        (Role.GATEWAY, ExtendedKeyUsageOID.CLIENT_AUTH),
        (Role.OPERATOR, ExtendedKeyUsageOID.CLIENT_AUTH),
    ],
)
def test_a_certificate_serves_one_purpose(certify, role, purpose):
    usage = certify(role).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [purpose]


def test_an_orchestrator_is_reached_by_local_names_by_default(certify):
    certificate = certify(Role.ORCHESTRATOR)
    assert names_of(certificate, x509.DNSName) == ["localhost", "orchestrator"]
    addresses = [ip_address("127.0.0.1"), ip_address("::1")]
    assert names_of(certificate, x509.IPAddress) == addresses


def test_given_hosts_take_the_place_of_local_names(certify):
    certificate = certify(Role.ORCHESTRATOR, hosts=["fed.example.org", "192.0.2.7"])
    assert names_of(certificate, x509.DNSName) == ["fed.example.org"]
    assert names_of(certificate, x509.IPAddress) == [ip_address("192.0.2.7")]


@pytest.mark.parametrize("role", [Role.GATEWAY, Role.OPERATOR])
def test_only_an_orchestrator_has_hosts(certify, role):
    with pytest.raises(pki.HostsNotAllowed, match=role):
        certify(role, hosts=["localhost"])


@pytest.mark.parametrize("host", ["", "a b", "münchen.example", "https://example.org", "a..b"])
def test_what_cannot_be_dialled_is_no_host(certify, host):
    with pytest.raises(pki.NotAHost, match="neither a DNS name"):
        certify(Role.ORCHESTRATOR, hosts=[host])


def test_a_certificate_is_valid_for_the_days_asked_and_a_little_before(certify):
    certificate = certify(Role.GATEWAY)
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=10)


def test_a_certificate_is_signed_by_its_authority(authority, certify):
    certify(Role.GATEWAY).verify_directly_issued_by(authority.certificate)


def test_a_certificate_ends_with_the_authority_that_signed_it(authority):
    end = authority.certificate.not_valid_after_utc
    late = Period(end - timedelta(days=1), timedelta(days=10))
    key, identity = issuing.new_key().public_key(), Identity("clinics", Role.GATEWAY, "north")
    assert issuing.certify(authority, key, identity, late).not_valid_after_utc == end
    with pytest.raises(AuthorityExpired, match="fedgate pki intermediate"):
        issuing.certify(authority, key, identity, Period(end, timedelta(days=10)))


def test_only_the_root_lets_another_authority_below_it():
    root = issuing.make_root("clinics", NOW)
    below = issuing.make_intermediate(root, NOW)
    lengths = [
        each.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for each in (root, below)
    ]
    assert lengths == [1, 0]


def test_a_certificate_cannot_sign_others(certify):
    extensions = certify(Role.GATEWAY).extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_an_authority_remembers_its_federation(authority):
    assert issuing.federation_of(authority.certificate) == "clinics"


@pytest.mark.parametrize("name", ["", "Clinics", "a/b", "-a", "a" * 64, "a..b"])
def test_a_federation_needs_a_name_that_fits_into_a_uri(name):
    with pytest.raises(pki.NotAName, match="lower-case"):
        pki.init(NOWHERE, name)
