"""A signed acceptance: what a gateway said cannot be changed, nor be put on somebody else."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from common.acceptance import Acceptance, AcceptanceForged, Signer, check
from common.adaptive_clipping import AdaptiveClipping
from common.certificate_keys import KeyCannotSign, NobodysCertificate, has_signed
from common.hyperparameters import Optimizer
from common.ids import GatewayId, PlanId, RunId
from common.protocol import Effective
from common.signatures import SignedAcceptance
from tests.fakes import EFFECTIVE

SAID = Acceptance("acme", GatewayId("north"), RunId("first"), PlanId("7" * 64), EFFECTIVE)
CURVE = ec.derive_private_key(1234567, ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BEGIN = datetime(2030, 1, 1, tzinfo=UTC)


def signer(key=CURVE, uri: str | None = "fed://acme/gateway/north") -> Signer:
    """Return a certificate that `key` has signed for itself, and the key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(BEGIN)
        .not_valid_after(BEGIN + timedelta(days=1))
    )
    if uri is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(key, algorithm).public_bytes(Encoding.PEM)
    return Signer(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def signed(by: Signer, said: Acceptance = SAID) -> SignedAcceptance:
    signature = by.accept(said.run_id, said.plan_digest, said.effective)
    return SignedAcceptance(said.statement, signature.hex(), by.certificate.decode())


@pytest.mark.parametrize("key", [CURVE, EDWARDS], ids=["P-256", "Ed25519"])
def test_what_was_signed_is_proven_with_the_key_of_either_kind(key):
    check(signed(signer(key)), SAID)


@pytest.mark.parametrize("key", [CURVE, EDWARDS], ids=["P-256", "Ed25519"])
def test_the_same_is_signed_with_the_same_bytes_so_that_nothing_hides_in_them(key):
    assert signed(signer(key)).signature == signed(signer(key)).signature


OTHER_VALUES = {
    "learning_rate": 0.2,
    "clipping_norm": 1.0000000000000002,
    "noise_multiplier": 0.9999999999999999,
    "sampling_rate": 0.2,
    "local_steps": 6,
    "optimizer": Optimizer.ADAMW,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "warmup_steps": 1,
    "adaptive_clipping": AdaptiveClipping(smallest=0.1, largest=2.0),
}


def others():
    """Yield the acceptance with any one thing changed."""
    how = EFFECTIVE.hyperparameters
    assert set(OTHER_VALUES) == set(type(how).model_fields)
    for name, value in OTHER_VALUES.items():
        yield replace(SAID, effective=Effective(how.model_copy(update={name: value})))
    yield replace(SAID, effective=replace(EFFECTIVE, insecure_deterministic=True))
    yield replace(SAID, federation="others")
    yield replace(SAID, gateway=GatewayId("south"))
    yield replace(SAID, run_id=RunId("second"))
    yield replace(SAID, plan_digest=PlanId("8" * 64))


def test_a_change_of_any_field_is_found():
    assert {each.name for each in fields(Acceptance)} == {
        *("federation", "gateway", "run_id", "plan_digest", "effective"),
    }
    proof = signed(signer())
    for other in others():
        with pytest.raises(AcceptanceForged, match="what was signed are other values"):
            check(proof, other)
        with pytest.raises(AcceptanceForged):
            check(replace(proof, statement=other.statement), other)


def test_a_signature_that_is_changed_in_any_byte_is_found():
    proof = signed(signer())
    data, tries = bytes.fromhex(proof.signature), 0
    for place in range(len(data)):
        for bit in range(8):
            text = (data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]).hex()
            with pytest.raises(AcceptanceForged, match="has not signed"):
                check(replace(proof, signature=text), SAID)
            tries += 1
    assert tries > 500


@pytest.mark.parametrize("text", ["", "ab", "no", "ab" * 64])
def test_what_is_no_signature_is_refused(text):
    with pytest.raises(AcceptanceForged):
        check(replace(signed(signer()), signature=text), SAID)


def test_another_gateway_cannot_accept_in_this_ones_name():
    other = signer(EDWARDS, "fed://acme/gateway/south")
    proof = SignedAcceptance(SAID.statement, signed(other).signature, other.certificate.decode())
    with pytest.raises(AcceptanceForged, match="names somebody else"):
        check(proof, SAID)


@pytest.mark.parametrize("uri", ["fed://acme/operator/north", "fed://others/gateway/north", None])
def test_only_this_gateways_certificate_of_this_federation_proves_anything(uri):
    named = signer(uri=uri)
    genuine = signed(signer())
    with pytest.raises(AcceptanceForged, match="names somebody else"):
        check(replace(genuine, certificate=named.certificate.decode()), SAID)


def test_one_keys_signature_does_not_pass_under_anothers_certificate():
    genuine = signed(signer())
    with pytest.raises(AcceptanceForged, match="has not signed"):
        check(replace(genuine, certificate=signer(EDWARDS).certificate.decode()), SAID)


def test_a_certificate_that_names_nobody_signs_nothing():
    with pytest.raises(NobodysCertificate):
        signed(signer(uri=None))


def test_a_key_of_another_kind_neither_signs_nor_proves():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    other = signer(key)
    with pytest.raises(KeyCannotSign, match="elliptic curve"):
        signed(other)
    assert not has_signed(other.certificate, b"", b"")
    with pytest.raises(KeyCannotSign):
        signed(replace(other, key=b"no key"))


def test_a_signers_key_is_not_shown():
    assert "PRIVATE KEY" not in repr(signer())
