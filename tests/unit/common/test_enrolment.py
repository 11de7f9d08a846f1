"""Tokens and signing requests, as text and bytes."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from common.certificates import IdentityUnclear, WeakKey, certificate_of, check_key, read_chain
from common.enrolment import (
    LONGEST_REQUEST,
    NotAFingerprint,
    RequestMalformed,
    Token,
    TokenMalformed,
    is_bare,
    make_request,
    read_fingerprint,
    read_request,
)
from common.errors import RequestError
from common.issuing import make_root, new_key
from common.tls import Identity, Role, identity_of

IDENTITY = Identity("acme", Role.GATEWAY, "north")
REQUEST = make_request(new_key(), IDENTITY)
CERTIFICATE = make_root("acme", datetime(2026, 3, 1, tzinfo=UTC)).certificate.public_bytes(
    Encoding.DER
)
TOKEN = Token(bytes(range(16)), "ab" * 32, "fed.example.org:8444", IDENTITY)


def test_a_token_says_what_it_was_made_of():
    assert Token.from_text(f"  {TOKEN.text()}\n") == TOKEN


def test_a_token_is_one_line_that_a_terminal_takes():
    assert TOKEN.text().startswith("fedgate1-")
    assert TOKEN.text().replace("-", "").replace("_", "").isalnum()


@given(st.integers(0, len(TOKEN.text()) - 1), st.characters(codec="ascii"))
def test_a_token_with_a_wrong_letter_is_refused(place, letter):
    text = TOKEN.text()
    wrong = text[:place] + letter + text[place + 1 :]
    if wrong.strip() == text:
        return
    try:
        assert Token.from_text(wrong) == TOKEN  # bits of the last letter that carry nothing
    except TokenMalformed:
        return
    assert place == len(text) - 1


@given(st.text(max_size=300))
def test_a_text_is_a_token_or_refused_in_a_sentence(text):
    for each in (text, f"fedgate1-{text}"):
        with pytest.raises(TokenMalformed, match="copy the whole line"):
            Token.from_text(each)


@pytest.mark.parametrize("length", [10, 100, 200])
def test_half_a_token_is_none(length):
    with pytest.raises(TokenMalformed):
        Token.from_text(TOKEN.text()[:length])


def test_a_request_says_who_asks_and_for_which_key():
    key = new_key()
    request = read_request(make_request(key, IDENTITY))
    assert (request.identity, request.key) == (IDENTITY, key.public_key())


@given(st.binary(max_size=600))
def test_bytes_are_a_request_or_refused(data):
    with pytest.raises(RequestMalformed):
        read_request(data)
    assert not is_bare(data)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=500)
@given(st.integers(0, 1), st.lists(st.tuples(st.integers(0, 999), st.integers(0, 255)), max_size=3))
def test_what_others_made_is_read_or_refused_as_such(kind, changes):
    """A request, or a certificate, with some of its bytes changed; nothing else is raised."""
    data = bytearray((REQUEST, CERTIFICATE)[kind])
    for place, byte in changes:
        data[place % len(data)] = byte
    with suppress(RequestError):
        if kind:
            certificate_of(read_chain(pem_of(data))[0])
        else:
            read_request(bytes(data))


def pem_of(der: bytes) -> bytes:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n".encode()


@pytest.mark.parametrize("uri", ["fed://[/gateway/a", "fed://[::1/gateway/a", "fed:", ""])
def test_what_is_no_uri_names_nobody(uri):
    assert identity_of(uri) is None


def test_a_request_that_another_key_signed_is_refused():
    der = make_request(new_key(), IDENTITY)
    for place in range(len(der) - 70, len(der)):  # the signature
        torn = der[:place] + bytes([der[place] ^ 1]) + der[place + 1 :]
        with pytest.raises(RequestMalformed):
            read_request(torn)


def test_a_request_that_is_too_long_is_not_read():
    with pytest.raises(RequestMalformed, match="at most 4096"):
        read_request(bytes(LONGEST_REQUEST + 1))


def request_of(*uris: str, key=None) -> bytes:
    names = [x509.UniformResourceIdentifier(uri) for uri in uris] or [x509.DNSName("north")]
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key or new_key(), SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "uris", [(), ("https://acme",), ("fed://acme/gateway/a", "fed://acme/admin/a")]
)
def test_a_request_names_one_member(uris):
    with pytest.raises(IdentityUnclear, match=f"names {sum(u[:3] == 'fed' for u in uris)} member"):
        read_request(request_of(*uris))


@pytest.mark.parametrize("bits", [1024, 2048])
def test_a_request_for_a_weak_key_is_refused(bits):
    key = rsa.generate_private_key(65537, bits)
    with pytest.raises(WeakKey, match=f"RSA with {bits} bits"):
        read_request(request_of(IDENTITY.uri, key=key))


@pytest.mark.parametrize("curve", [ec.SECP192R1(), ec.SECP224R1(), ec.SECP256K1()])
def test_a_weak_or_strange_curve_is_refused(curve):
    with pytest.raises(WeakKey, match=curve.name):
        check_key(ec.generate_private_key(curve).public_key())


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_strong_curves_are_taken(curve):
    key = ec.generate_private_key(curve).public_key()
    assert check_key(key) is key


def test_ed25519_and_long_rsa_are_taken():
    for key in (ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 3072)):
        assert check_key(key.public_key())


def test_a_fingerprint_is_read_as_people_write_it():
    assert read_fingerprint(" AB:" + "ab" * 31) == "ab" * 32
    with pytest.raises(NotAFingerprint, match="64 hexadecimal"):
        read_fingerprint("ab" * 31)


@pytest.mark.parametrize(("bits", "exponent"), [(2048, 65537), (16384, 65537), (3072, 3)])
def test_an_rsa_key_that_is_weak_or_slow_to_check_is_refused(bits, exponent):
    modulus = (1 << bits - 1) + 1  # nothing is computed with it
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    with pytest.raises(WeakKey, match=f"of RSA with {bits} bits and the exponent {exponent}"):
        check_key(key)
