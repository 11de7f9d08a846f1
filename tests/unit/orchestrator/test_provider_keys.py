"""Which of a provider's published keys may sign tokens."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from orchestrator.provider_keys import Unusable, usable_keys

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505


def published(key, **changes: object) -> dict:
    """Return a key as a provider publishes it."""
    if isinstance(key, rsa.RSAPublicKey):
        form = RSAAlgorithm
    elif isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        form = ECAlgorithm
    else:
        form = OKPAlgorithm
    return {**json.loads(form.to_jwk(key)), "kid": "k", **changes}


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(65537, 2048).public_key(), "RS256"),
        (P256.public_key(), "ES256"),
        (ed25519.Ed25519PrivateKey.generate().public_key(), "EdDSA"),
    ],
    ids=["RS256", "ES256", "EdDSA"],
)
def test_public_keys_of_the_three_kinds_sign(key, algorithm):
    (found,) = usable_keys({"keys": [published(key)]}).values()
    assert found.algorithm_name == algorithm


OTHERS = {
    "a secret": {"kty": "oct", "k": "c2VjcmV0", "kid": "k"},
    "a secret that says RS256": {"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": "RS256"},
    "a secret for nothing": {"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": "none"},
    "one for encryption": published(P256.public_key(), use="enc"),
    "one that says HS256": published(P256.public_key(), alg="HS256"),
    "one that says ES384": published(P256.public_key(), alg="ES384"),
    "one without a name": published(P256.public_key(), kid=None),
    "one whose name is a number": published(P256.public_key(), kid=7),
    "a private one": published(P256),
    "a short one of RSA": published(SHORT.public_key()),
    "one of P-384": published(P384.public_key()),
    "one of P-384 that says ES256": published(P384.public_key(), alg="ES256"),
    "one of Ed448": published(ed448.Ed448PrivateKey.generate().public_key(), alg="EdDSA"),
}


@pytest.mark.parametrize("listed", OTHERS.values(), ids=OTHERS.keys())
def test_no_other_key_signs(listed):
    other = published(P256.public_key(), kid="other")
    assert list(usable_keys({"keys": [listed, other]})) == ["other"]


def test_of_two_keys_of_one_name_the_first_counts():
    first, second = (
        published(ec.generate_private_key(ec.SECP256R1()).public_key()) for _ in range(2)
    )
    found = usable_keys({"keys": [first, second]})["k"]
    assert found.key == ECAlgorithm(ECAlgorithm.SHA256).from_jwk(first)


@pytest.mark.parametrize("listed", [[], [1, "a", {}, None]])
def test_a_provider_that_has_withdrawn_every_key_has_none(listed):
    assert usable_keys({"keys": listed}) == {}


@pytest.mark.parametrize("found", [{}, {"keys": None}, {"keys": {"k": {}}}])
def test_what_holds_no_key_is_not_a_set_of_keys(found):
    with pytest.raises(Unusable):
        usable_keys(found)
