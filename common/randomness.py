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
CIPHER_BLOCK = 16  # bytes
SPARE = 16  # bytes of room that the cipher asks for beyond its output
ZEROS = memoryview(bytes(1 << 20))  # what is encrypted, so that the key stream itself comes out

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
    """Bytes and uniform values under one key; each bit of the key stream is used once."""

    def __init__(self, key: bytes) -> None:
        """Begin the key stream of `key`."""
        self.key = key
        self._position = 0  # in bytes
        self._begin()

    def skip(self, count: int) -> int:
        """Pass over the next `count` bytes, which somebody else makes; return where they begin."""
        start = self._position
        self._position += count
        self._begin()
        return start

    def _begin(self) -> None:
        block, before = divmod(self._position, CIPHER_BLOCK)
        counter = modes.CTR(block.to_bytes(CIPHER_BLOCK, "big"))
        self._encryptor = Cipher(algorithms.AES256(self.key), counter).encryptor()
        self._encryptor.update(ZEROS[:before])

    def read(self, count: int) -> bytearray:
        """Return the next `count` bytes of the key stream."""
        room = bytearray(count + SPARE)
        del room[len(self.read_into(room, count)) :]
        return room

    def read_into(self, room: bytearray, count: int) -> memoryview:
        """Write the next `count` bytes of the key stream to `room`, and return them.

        Args:
            room: at least SPARE bytes longer than `count`.
            count: how many bytes.
        """
        self._position += count
        zeros = ZEROS[:count] if count <= len(ZEROS) else memoryview(bytes(count))
        return memoryview(room)[: self._encryptor.update_into(zeros, room)]

    def uniforms(self, count: int) -> Float64:
        """Return `count` values on the grid of 2^-53 in (0, 1], each equally likely."""
        words = np.frombuffer(self.read(8 * count), dtype="<u8")
        return np.ldexp(((words >> np.uint64(11)) + np.uint64(1)).astype(np.float64), -53)


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
