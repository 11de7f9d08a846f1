"""Randomness: secrets from the system, keys derived from them, streams of noise under a key.

Everything random in a gateway comes from AES-256-CTR under a key that nobody else can know; the
same key gives the same stream, so a round that a crash cut short can be trained again with the
same noise. A seed in the place of the system's randomness is for tests and demonstrations only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from common.ids import GatewayId

KEY_BYTES = 32
BLOCK = 1 << 20  # values made at a time, an even number: bounds memory

Float64: TypeAlias = NDArray[np.float64]


def system_secret() -> bytes:
    """Return 32 fresh bytes of the operating system's randomness."""
    return os.urandom(KEY_BYTES)


def derive_key(secret: bytes, *, purpose: str, binding: Mapping[str, str]) -> bytes:
    """Return the 32-byte key that `secret` gives for one purpose under one binding.

    Keys differ as soon as the purpose, or a name or a value of the binding, differs: every part
    is preceded by its length, so no two bindings have the same encoding.

    Source:
        RFC 5869, HKDF with SHA-256.
    """
    parts = [purpose, *(part for item in sorted(binding.items()) for part in item)]
    encoded = [part.encode() for part in parts]
    info = b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
    return HKDF(hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


class RandomStream:
    """Uniform and Gaussian values under one key; each bit of the key stream is used once."""

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def uniforms(self, count: int) -> Float64:
        """Return `count` values on the grid of 2^-53 in (0, 1], each equally likely."""
        words = np.frombuffer(self._encryptor.update(bytes(8 * count)), dtype="<u8")
        return np.ldexp(((words >> np.uint64(11)) + np.uint64(1)).astype(np.float64), -53)

    def gaussian(self, count: int) -> Float64:
        """Return `count` independent standard normal values, shape (count,), in float64.

        The radius of each pair comes from a uniform of 53 bits, so the tail ends at 8.57.

        Source:
            Box and Muller 1958, "A Note on the Generation of Random Normal Deviates".
        """
        values = np.empty(count)
        for start in range(0, count, BLOCK):
            block = values[start : start + BLOCK]
            pairs = -(-len(block) // 2)
            radius = np.sqrt(-2.0 * np.log(self.uniforms(pairs)))
            angle = 2.0 * np.pi * self.uniforms(pairs)
            block[:pairs] = radius * np.cos(angle)
            block[pairs:] = (radius * np.sin(angle))[: len(block) - pairs]
        return values


@dataclass(frozen=True)
class InsecureSeed:
    """A seed in the place of the system's randomness: repeatable, hence never private."""

    seed: int
    gateway: GatewayId  # bound in, so that no two gateways share noise

    def secret(self, *, purpose: str, **binding: str) -> bytes:
        """Return the 32 bytes that stand where `system_secret` would."""
        return derive_key(
            str(self.seed).encode(),
            purpose=f"insecure {purpose}",
            binding={"gateway": self.gateway, **binding},
        )
